from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.errors import DataError, UserError
from jobs import tasks
from jobs.audit import audit
from jobs.data import preparation
from jobs.evaluation import evaluate
from jobs.explain import faithfulness, heatmap, highlight
from jobs.explain.pixels import ImageExplanation
from jobs.inputs import images
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.plan import plan
from jobs.spec import Spec
from jobs.tasks.task import Bounds
from jobs.training import loop, train
from tests import tiny_images

TASK = tasks.get("image-classification")


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_images.base_model(tmp_path_factory.mktemp("vision"))


@pytest.fixture
def spec(tmp_path: Path, vision_model: Path) -> Spec:
    return tiny_images.spec(tmp_path / "data", vision_model)


@pytest.fixture
def trained(spec: Spec, place: Place, process_group: None, tmp_path: Path) -> Predictor:
    """After a short training with LoRA, in this process."""
    alone = spec.with_values({"scaling.workers": 1})
    job = train.work(alone, preparation.prepare(alone, place.storage), place.storage)

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        shutil.copytree(checkpoint, tmp_path / "kept", dirs_exist_ok=True)

    loop.run(job, rank=0, world=1, threads=1, report=report)
    net = model.load(tmp_path / "kept", TASK, spec.base_model, job.labels, merge=True)
    return Predictor(net, TASK, TASK.processor(spec.base_model), job.labels, Bounds(1, 1))


def test_a_folder_of_class_folders_is_a_source(tmp_path: Path, vision_model: Path) -> None:
    for at, (picture, label) in enumerate(tiny_images.pictures(60)):
        (tmp_path / "digits" / label).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "digits" / label / f"{at}.png")
    spec = tiny_images.spec(tmp_path / "data", vision_model, 60)
    rows = preparation.load(spec.with_values({"data.source": str(tmp_path / "digits")})).rows
    assert set(rows["label"]) == set(tiny_images.LABELS)
    assert set(rows["input"]) == set(preparation.load(spec).rows["input"])


def test_images_that_cannot_be_read_are_named_by_row(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "data" / "3.png").write_bytes(b"torn")
    (tmp_path / "data" / "7.png").unlink()
    with pytest.raises(DataError) as caught:
        preparation.check(spec)
    assert "row 4 column 'image': is no image that can be read, row 8 column 'image': no such file: '7.png'" in str(
        caught.value
    )


@pytest.mark.long
def test_it_learns_explains_itself_and_is_true_to_that(trained: Predictor, spec: Spec, place: Place) -> None:
    data = preparation.prepare(spec, place.storage)
    rows = evaluate.answers(trained, data, place.storage, spec.evaluation)
    assert (rows["true"] == rows["label"]).mean() > 0.9  # of three labels
    assert rows["embedding"].iloc[0].shape == (32,)
    given = rows["input"].iloc[0]
    made = trained.explain(given, None, 128)  # the score leaps on the way from nothing: 32 steps may miss where
    assert isinstance(made, ImageExplanation)
    assert (len(made.grid), len(made.grid[0])) == (14, 14)
    assert made.label == rows["label"].iloc[0]
    assert sum(map(sum, made.grid)) == pytest.approx(made.score - made.empty_score + made.gap, abs=1e-4)
    assert abs(made.gap) < 0.1
    other = trained.explain(given, "4" if made.label != "4" else "0", 32)
    assert other.score < made.score
    found = faithfulness.check(trained, list(rows["input"].head(20)), 16)
    assert found.named > found.chance + 0.1
    with pytest.raises(UserError, match="'7' is no label of this model"):
        trained.explain(given, "7", 4)
    for shown in (highlight.plain([made]), highlight.coloured([made])):
        assert f"{made.label} {made.score:.3f}" in shown
    assert images.opened(heatmap.drawn(made)).size == (448, 448)
    assert f'src="{given}"' in highlight.page([made])


def test_cells_that_are_cut_take_the_mean_colour() -> None:
    given = images.encoded(tiny_images.pictures(1)[0][0])
    made = ImageExplanation(given, "0", 0.9, 0.3, 0.0, tuple((float(r),) * 4 for r in range(4)))
    assert [cell.row for cell in made.strongest(4)] == [3] * 4
    before, after = (np.asarray(images.opened(image)) for image in (given, made.without(made.strongest(4))))
    assert np.array_equal(before[:6], after[:6])
    assert len(np.unique(after[6:])) == 1


def test_a_plan_and_an_audit_of_images(spec: Spec, place: Place, tmp_path: Path) -> None:
    planned = plan.make(spec, place.settings)
    assert planned.fits
    assert planned.need.activations > 0
    shutil.copy(tmp_path / "data" / "0.png", tmp_path / "data" / "1.png")  # the same picture, perhaps of another label
    made = audit.run(spec, place.settings)
    assert {finding.kind for finding in made.findings} & {"duplicate", "conflicting labels"}
    page = place.storage.read_bytes(f"audits/digits/{made.dataset}/report.html").decode()
    assert '<img class="row" alt="" src="data:image/png;base64,' in page
    assert "length of texts" not in page


@pytest.mark.ray
def test_from_images_to_answers_over_http(spec: Spec, tmp_path: Path, ray_session: str, storage_root: Path) -> None:
    from cluster.settings import Settings
    from jobs import pipeline
    from monitoring import promotion
    from serve import rollout

    place = Place.from_settings(Settings(storage=str(storage_root), address=ray_session))
    data = preparation.prepare(spec, place.storage)
    published = pipeline.train_and_publish(spec, data, place)
    verdict = promotion.settle(spec, place, published.version)
    assert verdict.promote, verdict.reasons
    assert published.evaluation.robustness
    url = rollout.start(spec, place.settings)
    try:
        rows = data.rows(place.storage, "test")
        body = {"inputs": list(rows["input"].head(8))}
        answer = httpx.post(f"{url}/v1/models/digits/predict", json=body, timeout=30).json()
        assert [p["label"] for p in answer["predictions"]].count("x") == 0
        right = [p["label"] == label for p, label in zip(answer["predictions"], rows["label"], strict=False)]
        assert sum(right) >= 6
        explained = httpx.post(
            f"{url}/v1/models/digits/explain", json={"inputs": body["inputs"][:1]}, timeout=30
        ).json()
        assert np.shape(explained["explanations"][0]["grid"]) == (14, 14)
        refused = httpx.post(f"{url}/v1/models/digits/predict", json={"inputs": "/etc/hostname"}, timeout=30)
        assert refused.status_code == 422
        assert "inputs.0 is no image" in json.dumps(refused.json())
    finally:
        rollout.stop()
