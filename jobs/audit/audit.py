"""The quality audit of a spec's data: measure, find, and write report.html, audit.json and doubtful.csv.

The measures are beside this file; what comes from the data alone is in `jobs/data`, as `prepare` has it.
"""

from __future__ import annotations

import csv
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.console import say
from cluster.session import connect, prepare_environment
from cluster.settings import Settings
from cluster.store.storage import Storage
from jobs import tasks
from jobs.data import preparation
from jobs.data.preparation import Loaded
from jobs.data.split import SPLITS
from jobs.inputs import texts
from jobs.models import model
from jobs.spec import Spec

from . import plot, report, text
from .embed import embed
from .findings import Finding, Measured, Written, findings
from .labels import Doubts, doubts
from .neighbours import neighbours, outliers


@dataclass(frozen=True)
class Audit:
    """What `audit.json` holds. `seconds` by stage; `doubtful`: rows in doubtful.csv; `place`: the folder's URL."""

    name: str
    dataset: str
    source: str
    base_model: str
    embedded_by: str
    rows: int
    kept: int
    splits: Mapping[str, int]
    labels: Mapping[str, int]
    doubtful: int
    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]
    place: str

    @property
    def leaks(self) -> int:
        """Rows whose text is in another split too."""
        return sum(len(finding.rows) for finding in self.findings if finding.severity == "error")


def run(spec: Spec, settings: Settings) -> Audit:
    """Audit the data of a spec. Raises DataError, SpecError. Starts a local Ray when the rows are many."""
    prepare_environment()  # or DeepSpeed, which PEFT imports, writes into stdout what it makes of this machine
    storage, clock = Storage.from_settings(settings), _Clock()
    with clock("read and clean"):
        loaded = preparation.load(spec)
        version = preparation.write(spec, storage, loaded)
    with_ray = len(loaded.rows) >= spec.audit.ray_rows
    place = f"audits/{spec.name}/{version.version}"
    with tempfile.TemporaryDirectory() as folder:
        vectors = _embedded(loaded, spec, settings, Path(folder) / "embeddings.npy", clock, with_ray=with_ray)
        measured = _measured(loaded, vectors, spec, clock)
        with clock("findings"):
            found = findings(loaded, measured, spec)
        with clock("pictures"):
            pictures = _pictures(loaded, vectors, measured, spec)
    ranked = measured.doubts.most_doubtful(spec.audit.doubtful) if measured.doubts else np.empty(0, np.int64)
    made = Audit(
        name=spec.name,
        dataset=version.version,
        source=spec.data.source,
        base_model=spec.base_model,
        embedded_by="Ray Data" if with_ray else "this process",
        rows=len(loaded.taken.rows) + len(loaded.taken.dropped),
        kept=len(loaded.rows),
        splits={split: version.size(split) for split in SPLITS},
        labels=_labels(loaded, spec),
        doubtful=len(ranked),
        findings=tuple(found),
        seconds=clock.seconds,
        place=storage.url(place),
    )
    if measured.doubts is not None:
        shown = tasks.get(spec.task).inputs.shown
        table = doubtful(loaded.rows, measured.doubts, ranked, loaded.taken.labels, shown)
        storage.write_bytes(f"{place}/doubtful.csv", table.encode())
    storage.write_bytes(f"{place}/report.html", report.page(made, pictures, spec.data.phone_region).encode())
    storage.write_json(f"{place}/audit.json", asdict(made))
    return made


def doubtful(
    rows: pd.DataFrame,
    found: Doubts,
    ranked: NDArray[np.int64],
    labels: list[str],
    shown: Callable[[str], str],
) -> str:
    """The rows to check by hand as CSV, the most doubtful first: what `--corrections` reads."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["row", "input", "label", "suggested", "doubt", "taken_for_an_error", "split"])
    for i in ranked:
        row = rows.iloc[i]
        judged = [labels[found.suggested[i]], f"{found.doubt[i]:.4f}", "yes" if found.wrong[i] else "no"]
        writer.writerow([row["row"], shown(row["input"]), row["label"], *judged, row["split"]])
    return out.getvalue()


class _Clock:
    """Seconds by stage; says each one as it begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        say(f"audit: {stage}")
        began = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - began


def _embedded(
    loaded: Loaded, spec: Spec, settings: Settings, file: Path, clock: _Clock, *, with_ray: bool
) -> NDArray[np.float32]:
    cpus = spec.scaling.most_workers * spec.scaling.cpus_per_worker + 1
    with connect(settings, num_cpus=cpus) if with_ray else nullcontext(), clock("embeddings"):
        return embed(list(loaded.rows["input"]), spec, file, with_ray=with_ray)


def _measured(loaded: Loaded, vectors: NDArray[np.float32], spec: Spec, clock: _Clock) -> Measured:
    rows, task, written = loaded.rows, tasks.get(spec.task), None
    if task.inputs.NAME == texts.NAME:
        with clock("language and length"):
            given = list(rows["input"])
            tokens = text.lengths(task.processor(model.locate(spec.base_model)), given)
            written = Written(tokens, text.languages(given))
    with clock("neighbours"):
        parts = np.asarray([SPLITS.index(split) for split in rows["split"]])
        near = neighbours(vectors, parts, spec.audit.neighbours)
    if not task.targets.CLOSED:
        return Measured(near, None, written)
    with clock("labels"):
        judged = doubts(vectors, _given(loaded), spec.audit.folds, spec.training.seed)
    return Measured(near, judged, written)


def _pictures(loaded: Loaded, vectors: NDArray[np.float32], measured: Measured, spec: Spec) -> dict[str, bytes]:
    labels, written, judged = loaded.taken.labels, measured.written, measured.doubts
    lengths = {} if written is None else {"length of texts": plot.lengths(written.tokens, spec.training.max_length)}
    if judged is None:
        return lengths
    given, far = _given(loaded), outliers(measured.neighbours.distance, spec.audit.outliers)
    return {
        "labels by split": plot.balance(loaded.rows, labels),
        **lengths,
        "doubt about labels": plot.doubt(judged, spec.audit.doubtful),
        "labels taken for errors": plot.confusion(given, judged, labels),
        "map of the inputs": plot.scatter(vectors, given, judged, far, labels, spec.training.seed),
    }


def _labels(loaded: Loaded, spec: Spec) -> dict[str, int]:
    """Rows by label, the commonest first."""
    parts = tasks.get(spec.task).targets.parts
    return dict(Counter(part for target in loaded.rows["label"] for part in parts(target)).most_common())


def _given(loaded: Loaded) -> NDArray[np.int64]:
    index = {label: i for i, label in enumerate(loaded.taken.labels)}
    return np.asarray([index[label] for label in loaded.rows["label"]])
