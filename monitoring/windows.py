"""Windows of the prediction log: the next predictions of one version, in their order, with the labels that came in.

A window begins after the last prediction that was judged: none is judged twice, none is left out between two windows.
The log may be larger than memory: what is looked for is found in SQL over it, and only the rows found are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from cluster.store.storage import Storage
from cluster.store.tables import select, where
from serve.log.predictions import feedback_log, prediction_log

ENOUGH_LABELS = 30
"""Labelled rows from which an accuracy is worth a look."""

Filter = tuple[str, str, Any]
Filters = list[Filter]
_ORDER = ["at", "prediction_id"]
_MEASURED = ["prediction_id", "label", "true"]


@dataclass(frozen=True, order=True)
class Position:
    """The last prediction judged, and the number of its window; numbers begin at 1 for each version."""

    number: int
    at: datetime
    prediction_id: str


START = Position(0, datetime(1970, 1, 1, tzinfo=UTC), "")


@dataclass(frozen=True)
class Window:
    """`rows`: prediction_id, at, input, label, confidence, embedding (float32 list), true (NaN while unknown).

    `measured`: prediction_id, label, true of the rows that say how accurate the version is now: the window's own
    labelled rows or, while fewer than ENOUGH_LABELS of them have a label, those labelled last, as many as a window has.
    `start` and `end` are the times (UTC) of the first and the last prediction.
    """

    model: str
    version: int
    number: int
    start: datetime
    end: datetime
    rows: pd.DataFrame
    measured: pd.DataFrame

    @property
    def key(self) -> str:
        return f"{self.version}-{self.number}"


def next_window(
    storage: Storage, model: str, version: int, size: int, after: Position = START, *, before: datetime | None = None
) -> Window | None:
    """The next `size` predictions after a position, by (at, prediction_id); None while there are not enough.

    Predictions made at `before` or later are left for the next look: a replica may still hold older ones in its spool.
    One that reaches the log after a later one was judged is in no window; its label counts like any other.
    """
    filters = _of(model, version, after.at)
    if before is not None:
        filters.append(("at", "<", before))
    at, beyond = where([("at", ">", after.at)], "p"), where([("prediction_id", ">", after.prediction_id)], "p")
    chosen = _selected(
        storage,
        f"SELECT at, prediction_id FROM p WHERE {where(filters, 'p')} AND ({at} OR {beyond}) "
        f"ORDER BY at, prediction_id LIMIT {size}",
        _ORDER,
    )
    if len(chosen) < size:
        return None
    start, end = _time(chosen["at"].iloc[0]), _time(chosen["at"].iloc[-1])
    rows = (
        prediction_log(storage)
        .read([*_of(model, version, start), ("at", "<=", end)], [*_ORDER, "input", "label", "confidence", "embedding"])
        .to_pandas()
    )
    rows = rows[rows["prediction_id"].isin(chosen["prediction_id"])].sort_values(_ORDER, ignore_index=True)
    rows = rows.merge(_feedback(storage, model, start)[["prediction_id", "true"]], on="prediction_id", how="left")
    own = rows.loc[rows["true"].notna(), _MEASURED]
    measured = own if len(own) >= ENOUGH_LABELS else _labelled_last(storage, model, version, size)
    return Window(model, version, after.number + 1, start, end, rows, measured)


def labelled(storage: Storage, model: str, version: int | None, last: int | None = None) -> pd.DataFrame:
    """Predictions whose true label is known, of one version or of all: the feedback that came last counts.

    Columns: prediction_id, version, input, predicted, true, labelled_at; in the order in which labels came in, with
    `last` only the last ones.
    """
    columns = ["prediction_id", "version", "input", "label AS predicted"]
    return _joined(storage, model, version, columns, last)


Span = tuple[int, datetime, datetime]
"""A version, and the times of a window's first and last prediction."""


def accuracies(storage: Storage, model: str, spans: Sequence[Span]) -> list[tuple[float | None, int]]:
    """(accuracy, labelled rows) of windows' own predictions, by all labels that have come in since they were judged.

    One query, however many windows.
    """
    if not spans:
        return []
    since = min(start for _, start, _ in spans)
    within = (where([("version", "=", v), ("at", ">=", start), ("at", "<=", end)], "own") for v, start, end in spans)
    cases = " ".join(f"WHEN {condition} THEN {number}" for number, condition in enumerate(within))
    sql = _joined_sql(model, None, ["version", "at", "label"], since)
    found = _selected(
        storage,
        f"""SELECT CASE {cases} END AS number, count(*) AS labelled,
            sum(CASE WHEN own.label = own."true" THEN 1 ELSE 0 END) AS right_ones FROM ({sql}) own GROUP BY 1""",
        ["number", "labelled", "right_ones"],
        feedback=True,
    )
    numbers = found["number"].tolist()
    labelled, right = (dict(zip(numbers, map(int, found[name]), strict=True)) for name in ("labelled", "right_ones"))
    return [(right[n] / labelled[n], labelled[n]) if n in labelled else (None, 0) for n in range(len(spans))]


def unlabelled(storage: Storage, model: str, version: int, last: int) -> pd.DataFrame:
    """The latest `last` predictions of a version without a true label, oldest first.

    Columns: prediction_id, at, input, label, confidence, scores (a dict by label), embedding (float32 list).
    """
    known = "" if feedback_log(storage).is_empty else "AND p.prediction_id NOT IN (SELECT prediction_id FROM f)"
    of = f"FROM p WHERE {where(_of(model, version), 'p')} {known} ORDER BY at DESC, prediction_id DESC LIMIT {last}"
    chosen = _selected(storage, f"SELECT at, prediction_id {of}", _ORDER, feedback=bool(known))
    start = _time(chosen["at"].iloc[-1]) if len(chosen) else None
    columns = [*_ORDER, "input", "label", "confidence", "scores", "embedding"]
    rows: pd.DataFrame = prediction_log(storage).read(_of(model, version, start), columns).to_pandas()
    rows = rows[rows["prediction_id"].isin(chosen["prediction_id"])].sort_values(_ORDER, ignore_index=True)
    return rows.assign(scores=[json.loads(scores) for scores in rows["scores"]])


def labels_of(storage: Storage, model: str, ids: Collection[str]) -> pd.DataFrame:
    """Those of some prediction ids, of any version, that are in the log, with the label that came in last.

    Columns: prediction_id, true (NaN while unknown), labelled_at (NaT).
    """
    wanted: Filters = [("prediction_id", "in", list(ids))]
    logged: pd.DataFrame = prediction_log(storage).read([*_of(model, None), *wanted], ["prediction_id"]).to_pandas()
    return logged.merge(_feedback(storage, model, more=wanted), on="prediction_id", how="left")


def labels_since(storage: Storage, model: str, since: datetime | None) -> int:
    """Predictions of a model, of any version, whose label came in after `since`."""
    after = where([] if since is None else [("labelled_at", ">", since)], "known")
    sql = f"SELECT count(*) AS found FROM ({_joined_sql(model, None, ['prediction_id'])}) known WHERE {after}"
    found = _selected(storage, sql, ["found"], feedback=True)
    return int(found["found"].sum())


def _labelled_last(storage: Storage, model: str, version: int, size: int) -> pd.DataFrame:
    return _joined(storage, model, version, ["prediction_id", "label"], size)[_MEASURED]


def _joined(
    storage: Storage, model: str, version: int | None, columns: list[str], last: int | None = None
) -> pd.DataFrame:
    """In the order in which labels came in; of the log only what has a label is ever in memory."""
    sql = _joined_sql(model, version, columns)
    if last is not None:
        sql = f"{sql} ORDER BY labelled_at DESC, prediction_id DESC LIMIT {last}"
    names = [column.rsplit(" ", 1)[-1] for column in columns]
    rows = _selected(storage, sql, [*names, "true", "labelled_at"], feedback=True)
    return rows.sort_values(["labelled_at", "prediction_id"], ignore_index=True)


def _joined_sql(model: str, version: int | None, columns: list[str], since: datetime | None = None) -> str:
    known = f"""SELECT prediction_id, label AS "true", at AS labelled_at,
        row_number() OVER (PARTITION BY prediction_id ORDER BY at DESC) AS nth
        FROM f WHERE {where(_of(model, None), "f")}"""
    return f"""SELECT {", ".join(f"p.{column}" for column in columns)}, known."true", known.labelled_at
        FROM ({known}) known JOIN p ON p.prediction_id = known.prediction_id
        WHERE known.nth = 1 AND {where(_of(model, version, since), "p")}"""


def _selected(storage: Storage, sql: str, columns: list[str], *, feedback: bool = False) -> pd.DataFrame:
    """What a query over the log `p` and the feedback `f` finds; no rows where one of them was never written to."""
    tables = {"p": prediction_log(storage)} | ({"f": feedback_log(storage)} if feedback else {})
    found = select(sql, tables)
    rows: pd.DataFrame = pd.DataFrame(columns=columns) if found is None else found.to_pandas()
    return rows


def _feedback(storage: Storage, model: str, since: datetime | None = None, more: Sequence[Filter] = ()) -> pd.DataFrame:
    filters = [*_of(model, None, since), *more]
    rows: pd.DataFrame = feedback_log(storage).read(filters, ["prediction_id", "at", "label"]).to_pandas()
    last: pd.DataFrame = rows.sort_values("at", kind="stable").drop_duplicates("prediction_id", keep="last")
    return last.rename(columns={"at": "labelled_at", "label": "true"})[["prediction_id", "true", "labelled_at"]]


def _of(model: str, version: int | None, since: datetime | None = None) -> Filters:
    filters: Filters = [("model", "=", model)]
    if version is not None:
        filters.append(("version", "=", version))
    if since is not None:
        # The day is a partition: whole folders are left unread.
        filters += [("day", ">=", f"{since:%Y-%m-%d}"), ("at", ">=", since)]
    return filters


def _time(stamp: pd.Timestamp) -> datetime:
    return stamp.to_pydatetime()
