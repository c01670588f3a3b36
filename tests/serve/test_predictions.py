from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.store.storage import Storage
from serve.log.predictions import (
    FEEDBACK,
    KINDS,
    OBSERVATIONS,
    PREDICTIONS,
    Feedback,
    Kind,
    Observation,
    Prediction,
    feedback_log,
    new_id,
    observations,
    parse_id,
    prediction_log,
    tables,
    utc_now,
)


def prediction(text: str = "what a day", model: str = "m", version: int = 1) -> Prediction:
    scores = {"negative": 0.25, "positive": 0.75}
    embedding = np.array([0.5, -1.25], dtype=np.float32)
    return Prediction(new_id(model, version), utc_now(), model, version, text, "positive", 0.75, scores, embedding)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True), st.integers(1, 10**6))
def test_an_id_says_its_model_and_version(model: str, version: int) -> None:
    assert parse_id(new_id(model, version)) == (model, version)


@given(st.text())
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="is no prediction id") as caught:
        parse_id(text)
    assert "\n" not in str(caught.value)


def test_ids_of_one_version_sort_by_time() -> None:
    ids = [new_id("m", 1) for _ in range(50)]
    stamps = [i[: -len("00000000")] for i in ids]
    assert stamps == sorted(stamps)
    assert len(set(ids)) == len(ids)


@given(st.text())
def test_a_record_survives_its_json_line(text: str) -> None:
    made = prediction(text)
    back = KINDS[made.table].from_record(json.loads(json.dumps(made.to_record())))
    assert isinstance(back, Prediction)
    assert (back.input, back.at, back.scores) == (made.input, made.at, made.scores)
    assert back.embedding.tolist() == made.embedding.tolist()


@given(st.lists(st.floats(width=32), max_size=8))
def test_an_embedding_is_kept_to_a_two_thousandth_and_what_is_none_stays_none(values: list[float]) -> None:
    made = np.array(values, np.float32)
    kept = replace(prediction(), embedding=made).to_row()["embedding"]
    assert (kept.dtype, kept.shape) == (np.float32, made.shape)
    finite = np.isfinite(made) & np.isfinite(kept)
    assert np.array_equal(kept[~np.isfinite(made)], made[~np.isfinite(made)], equal_nan=True)
    normal = finite & (np.abs(made) >= np.finfo(np.float32).tiny)
    assert np.all(np.abs(kept[normal].astype(float) - made[normal]) <= np.abs(made[normal].astype(float)) * 2**-11)
    assert np.all(kept[normal].view(np.uint32) % 2**13 == 0)


def test_the_log_takes_less_room_than_whole_embeddings(tmp_path) -> None:
    draw, storage = np.random.default_rng(0), Storage(str(tmp_path))
    rows = [replace(prediction(), embedding=draw.normal(size=384).astype(np.float32)).to_row() for _ in range(500)]
    prediction_log(storage).append(rows)
    (file,) = tmp_path.rglob("*.parquet")
    assert file.stat().st_size < 500 * 384 * 4 * 2 / 3


def test_the_tables_take_the_rows(tmp_path) -> None:
    storage = Storage(str(tmp_path))
    made = prediction()
    said = Feedback(made.prediction_id, utc_now(), "m", "negative")
    prediction_log(storage).append([made.to_row()])
    feedback_log(storage).append([said.to_row()])
    row = prediction_log(storage).read([("model", "=", "m")]).to_pylist()[0]
    assert row["embedding"] == [0.5, -1.25]
    assert row["at"] == made.at
    assert json.loads(row["scores"]) == made.scores
    assert feedback_log(storage).read().to_pylist()[0]["label"] == "negative"


@pytest.mark.parametrize(("label", "fault", "seconds"), [("positive", None, 0.25), (None, "ValueError: no", None)])
def test_an_observation_survives_its_json_line_and_the_table_takes_it(tmp_path, label, fault, seconds) -> None:
    made = Observation(new_id("m", 2), utc_now(), "m", 2, Kind.shadow, "k", label, fault, "b", 3, seconds)
    assert KINDS[made.table].from_record(json.loads(json.dumps(made.to_record()))) == made
    storage = Storage(str(tmp_path))
    assert observations(storage).append([made.to_row()])
    (row,) = observations(storage).read().to_pylist()
    assert (row["kind"], row["label"], row["fault"], row["seconds"]) == ("shadow", label, fault, seconds)
    assert set(tables(storage)) == {PREDICTIONS, FEEDBACK, OBSERVATIONS} == set(KINDS)
