"""What champion and canary were seen to do during a trial, with the labels that came in: what `canary.judge` judges."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from cluster.store.storage import Storage
from cluster.store.tables import Filters
from serve.log.predictions import feedback_log, observations

_COLUMNS = ["prediction_id", "at", "version", "kind", "key", "label", "fault", "batch", "batch_rows", "seconds"]


def since(storage: Storage, model: str, champion: int, canary: int, began: datetime) -> pd.DataFrame:
    """What both versions were seen to do from `began` (UTC) on, in the order of time.

    Columns: prediction_id, at, version, kind, key, label, fault, batch, batch_rows, seconds, and true, the label that
    came in last (None while unknown).
    """
    filters: Filters = [
        ("model", "=", model),
        ("version", "in", [champion, canary]),
        ("day", ">=", f"{began:%Y-%m-%d}"),
        ("at", ">=", began),
    ]
    rows = observations(storage).read(filters, _COLUMNS).to_pandas()
    known = feedback_log(storage).read([("model", "=", model), ("at", ">=", began)], ["prediction_id", "at", "label"])
    last = known.to_pandas().sort_values("at", kind="stable").drop_duplicates("prediction_id", keep="last")
    true = last.rename(columns={"label": "true"})[["prediction_id", "true"]]
    found: pd.DataFrame = rows.merge(true, on="prediction_id", how="left")
    return found.sort_values(["at", "prediction_id"], ignore_index=True)
