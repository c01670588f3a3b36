from __future__ import annotations

import pandas as pd
import pytest

from cluster.store.tracking import Tracker
from jobs import pipeline
from jobs.data import lineage, preparation
from jobs.pipeline import Place
from jobs.plan import plan
from jobs.spec import Spec
from tests import tiny


def test_a_version_knows_its_ancestors_and_the_runs_that_used_it(spec: Spec, place: Place) -> None:
    first = preparation.prepare(spec, place.storage)
    second = preparation.extend(spec, place.storage, first, pd.DataFrame(tiny.rows(40, 7)))
    tracker = Tracker(place.settings, spec.name)
    with pipeline.open_run(spec, first, place, "train") as run:
        run.log_metrics({"rows_per_second": 20.0})
    with pytest.raises(ZeroDivisionError), pipeline.open_run(spec, second, place, "retrain") as other:
        raise ZeroDivisionError
    found = lineage.trace(second.version, place.settings)
    assert (found.version, found.ancestors, found.intact) == (second, (first,), True)
    assert [(r["id"], r["status"]) for r in found.runs] == [(other.id, "FAILED")]
    assert [r["id"] for r in lineage.trace(first.version, place.settings).runs] == [run.id]
    assert found.shapes["test"].rows == second.size("test")
    assert dict(found.shapes["train"].labels) == dict(second.counts["train"])
    # The next plan tells its time by it.
    assert plan.duration(spec, 100, tracker.runs()) == plan.Duration(100 * spec.training.epochs / 20, 20, run.id, ())
    # As MLflow's own pages show it.
    (used,) = tracker._client.get_run(run.id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.dataset.source_type) == ("tiny", first.version, "local")
    assert first.place in used.dataset.source
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]
