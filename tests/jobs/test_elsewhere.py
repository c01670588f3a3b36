from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.errors import UserError
from jobs import pipeline
from jobs.data import preparation
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny

pytestmark = pytest.mark.long
LABELS = ("negative", "positive")


@pytest.fixture
def adapter(spec: Spec, tmp_path: Path) -> Path:
    """As PEFT saves one, with a head of its own."""
    import torch

    torch.manual_seed(3)
    net = model.trainable(spec, LABELS)
    with torch.no_grad():
        for weights in net.parameters():
            if weights.requires_grad:
                weights.add_(0.05 * torch.randn_like(weights))
    net.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_an_adapter_is_registered_and_answers_as_it_did(
    spec: Spec, place: Place, adapter: Path, tmp_path: Path
) -> None:
    made = pipeline.publish_made(spec, preparation.prepare(spec, place.storage), place, adapter)
    assert made.version.version == 1
    folder = place.registry.download(made.version)
    shutil.copytree(adapter, tmp_path / "kept" / "adapter")
    net = model.load(tmp_path / "kept", tiny.TASK, spec.base_model, LABELS)
    texts = [row["input"] for row in tiny.rows(20, seed=9)]
    ours = Predictor(net, tiny.TASK, tiny.TASK.processor(spec.base_model), LABELS, spec.bounds)(texts)
    theirs = Predictor.load(folder)(texts)
    assert [o.scores["positive"] for o in theirs] == pytest.approx([o.scores["positive"] for o in ours], abs=1e-5)
    assert not (folder / "pictures" / "learning-curve.png").exists()
    assert (folder / "card.md").is_file()


def test_a_whole_model_is_taken_when_its_labels_are_the_specs(spec: Spec, place: Place, tmp_path: Path) -> None:
    data = preparation.prepare(spec, place.storage)
    model.base(tiny.TASK, spec.base_model, LABELS, 5).save_pretrained(str(tmp_path / "right"))
    assert pipeline.publish_made(spec, data, place, tmp_path / "right").version.version == 1
    model.base(tiny.TASK, spec.base_model, LABELS[::-1], 5).save_pretrained(str(tmp_path / "wrong"))
    with pytest.raises(UserError, match=r"its labels are positive, negative \(here they are negative, positive\)"):
        pipeline.publish_made(spec, data, place, tmp_path / "wrong")


def test_what_is_no_model_is_refused_in_one_line(spec: Spec, place: Place, adapter: Path, tmp_path: Path) -> None:
    data = preparation.prepare(spec, place.storage)

    def refused(given: Path) -> str:
        with pytest.raises(UserError) as caught:
            pipeline.publish_made(spec, data, place, given)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "holds neither adapter_config.json nor config.json" in refused(tmp_path / "empty")
    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "pickles are not read" in refused(pickled)
    torn = shutil.copytree(adapter, tmp_path / "torn")
    (torn / "adapter_model.safetensors").write_bytes(b"torn")
    assert "is no safetensors file" in refused(torn)
    other = shutil.copytree(adapter, tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["no_such"]}))
    assert f"does not fit {spec.base_model}" in refused(other)


def test_methods_that_are_not_there_say_what_is(spec: Spec) -> None:
    with pytest.raises(ValueError, match="prefix-tuning is not supported; use prompt-tuning"):
        spec.with_values({"method.name": "prefix-tuning"})
    with pytest.raises(ValueError, match="qlora needs a GPU"):
        spec.with_values({"method.name": "qlora"})
