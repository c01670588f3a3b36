from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import specfile
from jobs.audit import audit, embed
from jobs.data import preparation
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.tasks.task import Bounds
from tests import tiny

EXAMPLE = Path(__file__).parents[3] / "examples" / "sentiment.yaml"


def with_rows(spec: Spec, rows: list[dict[str, str]], **values: object) -> Spec:
    tiny.write_csv(Path(spec.data.source), rows)
    return spec.with_values({key.replace("__", "."): value for key, value in values.items()})


def flip(label: str) -> str:
    return "negative" if label == "positive" else "positive"


@pytest.mark.long
def test_an_audit_finds_what_was_planted_and_writes_three_files(spec: Spec, place: Place) -> None:
    rows = tiny.rows(160)
    rows[10]["input"] += " ask ann@mail.org"
    rows[20]["input"] = "<b>schÃ¶n</b> " + rows[20]["input"]
    rows[30]["input"] = "road " * 40
    rows += [rows[0], {**rows[1], "label": ""}, {**rows[2], "label": flip(rows[2]["label"])}]
    made = audit.run(with_rows(spec, rows), place.settings)
    found = {finding.kind: finding.rows for finding in made.findings}
    assert found["duplicate"] == (161,)
    assert found["empty label"] == (162,)
    assert found["conflicting labels"] == (3, 163)
    assert found["personal data: email"] == (11,)
    assert found["encoding"] == (21,)
    assert found["too long"] == (31,)
    assert (made.rows, made.kept, made.leaks) == (163, 159, 0)
    where = f"audits/tiny/{made.dataset}"
    assert place.storage.list(where) == ["audit.json", "doubtful.csv", "report.html"]
    assert place.storage.read_json(f"{where}/audit.json") == json.loads(json.dumps(asdict(made)))
    page = place.storage.read_bytes(f"{where}/report.html").decode()
    assert page.count("data:image/png;base64,") == 5
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "ann@mail.org" not in page


def test_what_comes_back_from_a_hand_is_what_the_next_version_has(spec: Spec, place: Place, tmp_path: Path) -> None:
    made = audit.run(spec, place.settings)
    text = place.storage.read_bytes(f"audits/tiny/{made.dataset}/doubtful.csv").decode()
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(table) == made.doubtful == 16
    assert [float(row["doubt"]) for row in table] == sorted((float(row["doubt"]) for row in table), reverse=True)
    table[0]["label"], table[1]["label"] = flip(table[0]["label"]), ""
    fixes = tmp_path / "fixes.csv"
    pd.DataFrame(table).to_csv(fixes, index=False)
    version = preparation.prepare(spec.with_values({"data.corrections": str(fixes)}), place.storage)
    rows = pd.concat([version.rows(place.storage, split) for split in version.counts])
    labels = dict(zip(rows["row"].astype(str), rows["label"], strict=True))
    assert labels[table[0]["row"]] == table[0]["label"]
    assert table[1]["row"] not in labels
    assert {row["row"]: row["label"] for row in table[2:]}.items() <= labels.items()


def test_masked_data_leaves_nothing_personal_in_what_an_audit_writes(spec: Spec, place: Place) -> None:
    rows = tiny.rows(160)
    for row in rows:
        row["input"] += " ann@mail.org"
    made = audit.run(with_rows(spec, rows, data__pii="mask", audit__doubtful=0.9), place.settings)
    where = f"audits/tiny/{made.dataset}"
    assert [(f.severity, len(f.rows)) for f in made.findings if f.kind == "personal data: email"] == [("note", 160)]
    for name in place.storage.list(where):
        assert b"ann@mail.org" not in place.storage.read_bytes(f"{where}/{name}")


def test_embeddings_are_those_of_serving(spec: Spec, tmp_path: Path) -> None:
    from jobs.models import model

    texts = [row["input"] for row in tiny.rows(30)]
    found = embed.embed(texts, spec, tmp_path / "vectors.npy", with_ray=False)
    serving = Predictor(
        model.base(tiny.TASK, spec.base_model, ("a", "b"), 0),
        tiny.TASK,
        tiny.TASK.processor(spec.base_model),
        ("a", "b"),
        Bounds(32, 1),
    )
    np.testing.assert_allclose(found, [output.embedding for output in serving(texts)], atol=1e-5)


@pytest.mark.ray
def test_many_rows_are_embedded_through_ray_data_and_come_out_the_same(
    ray_session: str, spec: Spec, place: Place, tmp_path: Path
) -> None:
    texts = [row["input"] for row in tiny.rows(1300)]  # three blocks, the last one short
    streamed = embed.embed(texts, spec, tmp_path / "streamed.npy", with_ray=True)
    here = embed.embed(texts, spec, tmp_path / "here.npy", with_ray=False)
    np.testing.assert_allclose(streamed, here, atol=1e-5)
    made = audit.run(spec.with_values({"audit.ray_rows": 100}), place.settings)
    assert made.embedded_by == "Ray Data"


@pytest.mark.slow
def test_of_flipped_labels_four_in_five_are_in_the_top_tenth(place: Place, tmp_path: Path) -> None:
    """On real tweets with the real base model: 5% of the labels flipped, before anything is cleaned."""
    spec = specfile.load(EXAMPLE)
    rows = preparation.load(spec).rows
    flipped = rows.sample(frac=0.05, random_state=0).index
    rows.loc[flipped, "label"] = rows.loc[flipped, "label"].map(flip)
    rows[["input", "label", "group"]].to_csv(tmp_path / "flipped.csv", index=False)
    made = audit.run(
        spec.with_values({"data.source": str(tmp_path / "flipped.csv"), "data.group": "group", "data.input": "input"}),
        place.settings,
    )
    table = pd.read_csv(io.BytesIO(place.storage.read_bytes(f"audits/sentiment/{made.dataset}/doubtful.csv")))
    assert len(table) == -(-made.kept // 10)
    assert len(set(table["row"]) & set(flipped + 1)) >= 0.8 * len(flipped)
