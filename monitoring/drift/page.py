"""What drifted, on one page for a person: the columns, the predicted labels and the groups of inputs that moved.

drift/<model>/<version>-<number>-summary.html    beside Evidently's own report, which it links

It needs no network and no scripts. Texts on it are masked as in an audit: the page travels further than the log.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.store.storage import Storage
from jobs import tasks
from jobs.data import pii
from jobs.inputs import images, texts
from jobs.spec import Spec
from monitoring.windows import ENOUGH_LABELS

from . import clusters, drawings
from .clusters import Group
from .compare import EMBEDDING, ColumnDrift, Sample, is_number
from .page_template import PAGE

if TYPE_CHECKING:
    from .detect import DriftResult

_MOST_GROUPS, _MOST_LABELS = 6, 12
_MOST_ROWS = 2000
"""Rows a side that groups are made of."""
_LONG = 240
_THUMBNAIL, _LARGE = 96, 4000
"""Pixels a side, and the characters from which an image is shown as one."""


@dataclass(frozen=True)
class Side:
    """The reference or the window: its rows (`input, true, label, confidence, embedding`) and what was compared."""

    rows: pd.DataFrame
    sample: Sample

    def drawn(self, most: int = _MOST_ROWS) -> pd.DataFrame:
        return self.rows if len(self.rows) <= most else self.rows.sample(most, random_state=0)


@dataclass(frozen=True)
class _Share:
    """Of a predicted label, before and now, 0 to 1."""

    label: str
    before: float
    now: float


@dataclass(frozen=True)
class _Card:
    """A column on the page. `picture` is SVG, "" where there is none; `labels` instead of it for categories."""

    drift: ColumnDrift
    change: str
    chance: str
    picture: str
    labels: Sequence[_Share] = ()


def path(model: str, key: str) -> str:
    """Under the storage root."""
    return f"drift/{model}/{key}-summary.html"


def keep(storage: Storage, result: DriftResult, before: Side, now: Side, spec: Spec) -> None:
    """Store a window's page at `path`. The same window again replaces it."""
    storage.write_bytes(result.page, html(result, before, now, spec).encode())


def html(result: DriftResult, before: Side, now: Side, spec: Spec) -> str:
    from jinja2 import Environment, StrictUndefined

    inputs, level = tasks.get(spec.task).inputs, spec.monitoring.level
    sides = before.drawn(), now.drawn()
    groups = clusters.find(*sides, level, texts.words if inputs.NAME == texts.NAME else None)
    moved = [group for group in groups if group.moved][:_MOST_GROUPS]
    cards = [_card(column, before, now, sides, moved) for column in result.columns]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["shown"] = lambda text: _text(text, spec.data.phone_region)
    environment.filters["thumbnail"] = thumbnail
    return environment.from_string(PAGE).render(
        result=result,
        headline=headline(result),
        accuracy=accuracy(result),
        cards=sorted(cards, key=lambda card: not card.drift.drifted),
        groups=moved,
        still=len(groups) - sum(group.moved for group in groups),
        chance=chance,
        pictures=inputs.NAME == images.NAME,
        windows=round(1 / level),
        report=result.report.rsplit("/", 1)[-1],
    )


def headline(result: DriftResult) -> str:
    moved = sum(column.drifted for column in result.columns)
    drifted = f"{moved} of {len(result.columns)} columns drifted" if moved else "nothing drifted"
    known = result.accuracy is not None and result.labelled >= ENOUGH_LABELS
    now = result.accuracy if known else result.estimated.accuracy
    said = f"the model is {'measured' if known else 'estimated'} at {now:.2f}, it was {result.reference_accuracy:.2f}."
    return f"Window {result.number} of version {result.version} of {result.model}: {drifted}; {said}"


def accuracy(result: DriftResult) -> str:
    found = result.estimated
    few = f", fewer than the {ENOUGH_LABELS} that would say much" if result.labelled < ENOUGH_LABELS else ""
    measured = (
        "No true label has come in."
        if result.accuracy is None
        else f"{result.accuracy:.3f} measured on {result.labelled} labelled rows{few}."
    )
    guess = f"{found.accuracy:.3f} estimated from the model's confidence, {found.low:.3f} to {found.high:.3f}."
    return f"{measured} {guess} It was {result.reference_accuracy:.3f} on the test rows when the version was made."


def chance(p_value: float) -> str:
    """In how many windows chance alone does as much."""
    if p_value >= 0.1:  # noqa: PLR2004 - from here on tenths say enough
        return f"about {min(9, round(10 * p_value))} of 10"
    if p_value < 1e-6:  # noqa: PLR2004
        return "fewer than 1 of 1,000,000"
    return f"about 1 of {float(f'{1 / p_value:.2g}'):,.0f}"


def thumbnail(image: str) -> str:
    """A small input as it is, a large one as a JPEG of 96 pixels a side at most."""
    if len(image) <= _LARGE:
        return image
    picture = images.opened(image)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=70)
    return images.uri(out.getvalue())


def _text(text: str, region: str) -> str:
    masked = pii.mask(text, region)
    return masked if len(masked) <= _LONG else f"{masked[:_LONG]}\u2026"


def _card(
    column: ColumnDrift, before: Side, now: Side, rows: tuple[pd.DataFrame, pd.DataFrame], moved: Sequence[Group]
) -> _Card:
    said = chance(column.p_value)
    if column.name == EMBEDDING:
        numbers = " Numbers are the groups below." if moved else ""
        return _Card(column, f"What the model sees in the inputs, as a map.{numbers}", said, _map(*rows, moved))
    if column.name not in before.sample.columns:
        return _Card(column, "Whether a model can tell the window's rows from the reference's.", said, "")
    was, is_now = (side.sample.columns[column.name] for side in (before, now))
    if not is_number(was):
        return _Card(column, "", said, "", list(_shares(was, is_now)))
    ref, cur = (_finite(values) for values in (was, is_now))
    if not len(ref) or not len(cur):
        return _Card(column, "No values on one side.", said, "")
    change = f"Median {_spread(cur)} now, {_spread(ref)} before."
    return _Card(column, change, said, drawings.histogram(ref, cur))


def _shares(before: pd.Series, now: pd.Series) -> Iterator[_Share]:
    """The labels that changed most, the largest change first."""
    was, is_now = (side.astype("string").fillna("").value_counts(normalize=True) for side in (before, now))
    every = [_Share(name, float(was.get(name, 0)), float(is_now.get(name, 0))) for name in {*was.index, *is_now.index}]
    yield from sorted(every, key=lambda share: (-abs(share.now - share.before), share.label))[:_MOST_LABELS]


def _finite(column: pd.Series) -> NDArray[np.float64]:
    values = column.to_numpy(np.float64, na_value=np.nan)
    return np.asarray(values[np.isfinite(values)])


def _spread(values: NDArray[np.float64]) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3g} (half of them {low:.3g} to {high:.3g})"


def _map(before: pd.DataFrame, now: pd.DataFrame, moved: Sequence[Group]) -> str:
    from sklearn.decomposition import PCA

    points = np.stack([*before["embedding"], *now["embedding"]]).astype(np.float64)
    plane = np.zeros((len(points), 2))
    kept = min(2, *points.shape)
    plane[:, :kept] = PCA(kept, random_state=0).fit_transform(points)
    split = len(before)
    inside = ([*group.before.rows, *(split + row for row in group.now.rows)] for group in moved)
    marks = [plane[rows].mean(axis=0) for rows in inside]
    return drawings.dots(plane[:split], plane[split:], [(float(x), float(y)) for x, y in marks])
