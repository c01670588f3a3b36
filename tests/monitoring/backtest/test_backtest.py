"""Policies replayed on a small world of two domains whose labels hang on different numbers. No Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import DataError, NotFoundError, SpecError, UserError
from cluster.store.registry import ModelVersion
from jobs import pipeline, specfile
from jobs.inputs import texts
from monitoring import journal
from monitoring.backtest import backtest, frontier, recording, variants
from monitoring.backtest.replay import Replay, Rows
from monitoring.backtest.variants import ALWAYS, NEVER, OURS, Policy
from monitoring.drift import compare
from monitoring.journal import Journal
from tests.monitoring.fakes import BEGAN, feedback, prediction_log, publish

WINDOW = 60
SPEC = specfile.parse({"name": "moods", "base_model": "base", "data": {"source": "rows.csv"}})
HOME, AWAY = 0, 1
"""Which number tells the label in either domain; in the other domain it is nearly still."""


def rows(count: int, rng: np.random.Generator, *, away: bool = False) -> Rows:
    says, other = (AWAY, HOME) if away else (HOME, AWAY)
    points = rng.normal(size=(count, 4))
    points[:, other] *= 0.1
    true = np.where(points[:, says] + 0.3 * rng.normal(size=count) > 0, "pos", "neg")
    words = ["film", "plot"] if away else ["day", "night"]
    inputs = [f"{rng.choice(words)} {rng.integers(10**9)}" for _ in range(count)]
    return Rows(pd.DataFrame({"input": inputs, "true": true}), points.astype(np.float32))


def world(phases: str, *, seed: int = 0, unlabelled: float = 0.0) -> Replay:
    """One window a letter, h at home and a away, a row a minute."""
    rng = np.random.default_rng(seed)
    parts = [rows(WINDOW, rng, away=letter == "a") for letter in phases]
    log = parts[0]
    for part in parts[1:]:
        log = log.and_(part)
    at = pd.DatetimeIndex([BEGAN + timedelta(minutes=i) for i in range(len(log.table))])
    true = log.table["true"].where(rng.random(len(log.table)) >= unlabelled, None)
    log = Rows(log.table.assign(true=true, at=at), log.points)
    return Replay(rows(300, rng), rows(100, rng), log, texts, BEGAN - timedelta(days=1))


@pytest.fixture
def watching(spec):
    return spec.with_values(
        {f"monitoring.{key}": value for key, value in {"window": WINDOW, "min_labels": 50, "looks": 10}.items()}
    )


def played(made: Replay, spec, *more: str, delay: int = 0, price: float | None = None) -> dict[str, backtest.Outcome]:
    found = backtest.compare(
        made, variants.policies(spec, [3], more), spec, version=1, label_delay=delay, price=price
    ).outcomes
    return {one.policy: one for one in found}


@pytest.mark.long
def test_ours_is_near_every_window_for_less_and_never_is_not(watching):
    found = played(world("hhhhaaaaaaaa"), watching, delay=1)
    assert found[NEVER].retrained == () and found[NEVER].cost == 0 and found[NEVER].share == 0
    assert found[ALWAYS].share == 1
    assert found[OURS].accuracy > found[NEVER].accuracy + 0.1
    assert found[OURS].accuracy > found[ALWAYS].accuracy - 0.1
    assert 0 < found[OURS].cost < 0.7 * found[ALWAYS].cost
    assert found[OURS].last > found[NEVER].last


def test_nothing_is_retrained_where_nothing_moves(watching):
    found = played(world("hhhhhh"), watching)
    assert found[OURS].retrained == ()
    assert found[OURS].over_time == found[NEVER].over_time


@pytest.mark.long
def test_fixed_policies_retrain_by_the_clock_and_never_after_the_last_window(watching):
    found = played(world("hhhhhhh"), watching)
    assert found[ALWAYS].retrained == tuple(WINDOW * i for i in range(1, 7))
    assert found["every 3 windows"].retrained == (3 * WINDOW, 6 * WINDOW)
    assert played(world("hhhhhhh"), watching, delay=2)[ALWAYS].retrained == tuple(WINDOW * i for i in range(3, 7))


@pytest.mark.long
def test_what_the_watch_would_refuse_is_refused(watching):
    made = world("hhhaaaaa")
    found = played(made, watching, "patient: monitoring.min_labels=10000", "slow: monitoring.cooldown_minutes=1000")
    assert found["patient"].retrained == ()
    assert len(found["slow"].retrained) == 1


@pytest.mark.long
def test_a_budget_ends_retrainings_and_costs_are_device_hours(watching):
    found = played(world("hhhaaaaaaa"), watching, "poor: monitoring.budget_hours=0.5", price=0.5)
    assert len(found["poor"].retrained) == 1
    assert found["poor"].cost == 0.5
    assert found[ALWAYS].cost == 4.5


@pytest.mark.long
def test_a_champions_age_retrains(watching):
    found = played(world("hhhhhh"), watching, "old: monitoring.max_age_days=0.99")
    assert len(found["old"].retrained) == 1


def test_only_labelled_rows_are_counted_and_a_window_without_any_has_no_accuracy(watching):
    made = world("hhhhaaaa", unlabelled=0.5)
    made.log.table.loc[made.log.table.index[:WINDOW], "true"] = None
    one = played(made, watching)[NEVER]
    assert one.over_time[0] is None
    right = made.head(0).label == made.true
    assert one.accuracy == pytest.approx(right[made.labelled].mean())


def test_labels_that_are_not_known_yet_do_not_reach_a_surrogate():
    one, other = world("hhaa"), world("hhaa")
    later = other.log.table.index[2 * WINDOW :]
    other.log.table.loc[later, "true"] = "neg"
    assert (one.head(2 * WINDOW).confidence == other.head(2 * WINDOW).confidence).all()
    assert (one.head(4 * WINDOW).confidence != other.head(4 * WINDOW).confidence).any()


def test_a_retraining_keeps_rows_for_the_reference_and_none_that_was_trained_on_before():
    made = world("hhaa")
    made.log.table.loc[made.log.table.index[:10], "input"] = list(made.train.table["input"][:10])
    head = made.head(len(made))
    added = len(head.right) - len(made.reference.table)
    assert 0.1 * len(made) < added < 0.3 * len(made)
    assert not made._fresh[:10].any()


@pytest.mark.parametrize("phases", ["hh", "ha"])
def test_drift_says_what_the_whole_family_says(phases):
    made, part = world(phases), slice(WINDOW, 2 * WINDOW)
    head = made.head(0)
    current = compare.Sample(
        made._columns(made.log.table["input"][part], head, part), made.log.points[part].astype(float)
    )
    whole = compare.samples(head.reference, current, 0.01)
    found = made.drift(0, WINDOW, 2 * WINDOW, 0.01)
    assert any(c.drifted for c in found) == any(c.drifted for c in whole) == (phases == "ha")
    assert {c.name: c.p_value for c in found}.items() <= {c.name: c.p_value for c in whole}.items()
    assert {c.threshold for c in found} >= {0.01 / 5}


@given(
    st.text("abcdefghij -", min_size=1).filter(lambda name: name.strip()),
    st.integers(1, 10_000),
    st.sampled_from(["", " "]),
)
def test_a_policy_is_the_spec_with_other_keys(name, window, space):
    made = variants.parse(f"{name}:{space}monitoring.window={window},{space}monitoring.consecutive=1", SPEC)
    assert made == Policy(name.strip(), SPEC.monitoring.model_copy(update={"window": window, "consecutive": 1}))


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("eager", UserError, "is not NAME: KEY=VALUE"),
        ("eager:", UserError, "is not NAME: KEY=VALUE"),
        (": monitoring.window=3", UserError, "is not NAME: KEY=VALUE"),
        ("eager: monitoring.window", UserError, "is not NAME: KEY=VALUE"),
        ("eager: monitoring.window=3,", UserError, "is not NAME: KEY=VALUE"),
        ("eager: monitoring.windw=3", SpecError, "did you mean 'monitoring.window'"),
        ("eager: window=3", SpecError, "did you mean 'monitoring.window'"),
        ("eager: monitoring.window=none", SpecError, "monitoring.window"),
        ("eager: training.epochs=3", UserError, "only monitoring"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(text, error, said):
    with pytest.raises(error, match=said) as raised:
        variants.parse(text, SPEC)
    assert raised.value.exit_code == 2


def test_two_policies_of_one_name_are_refused():
    with pytest.raises(UserError, match="named never"):
        variants.policies(SPEC, [], ["never: monitoring.window=3"])


def test_a_log_of_less_than_two_windows_is_refused(watching):
    with pytest.raises(DataError, match=f"{WINDOW} rows are in the log, two windows"):
        played(world("h"), watching)


def test_a_table_and_a_picture(watching, tmp_path):
    given_ = variants.policies(watching, [3])
    made = backtest.compare(world("hhhaaa"), given_, watching, version=1, label_delay=1, price=0.25)
    said = frontier.table(made)
    assert "device-hours" in said and "every 3 windows" in said and "logistic regression" in said
    file = tmp_path / "backtest.png"
    frontier.draw(made, file)
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="cannot be written"):
        frontier.draw(made, tmp_path / "nowhere" / "backtest.png")


def embed(_, inputs) -> np.ndarray:
    """How many good words a text has, and how many words."""
    good = {"good", "great", "lovely", "fine", "warm", "bright"}
    return np.array([[len(good & set(text.split())), len(text.split())] for text in inputs], np.float32)


@pytest.fixture
def loop(spec, place, tmp_path) -> SimpleNamespace:
    """A place with version 1, trained on the spec's data, whose log has answers of version 1 and then of version 2."""
    data = pipeline.prepare(spec, place)
    test = data.rows(place.storage, "test").rename(columns={"label": "true"})
    reference = test[["input", "true"]].assign(embedding=list(embed(None, test["input"])))
    fake = publish(tmp_path / "version", reference)

    def get(model: str, version: int) -> ModelVersion:
        if version != 1:
            raise NotFoundError(f"model {model!r} has no version {version}")
        return replace(fake.champion(model), tags={"dataset": data.version})

    registry = SimpleNamespace(get=get, download=fake.download)
    return SimpleNamespace(storage=place.storage, registry=registry, settings=place.settings)


def answered(storage, spec, count: int, *, first: int = 1, labelled: bool = True) -> None:
    sentences = [f"{'good great' if i % 2 else 'bad awful'} day {i}" for i in range(count)]
    records = [
        {
            "prediction_id": f"{spec.name}.1.{i:06d}",
            "at": BEGAN + timedelta(minutes=i),
            "day": f"{BEGAN + timedelta(minutes=i):%Y-%m-%d}",
            "model": spec.name,
            "version": first if i < count // 2 else 2,
            "input": text,
            "label": "positive",
            "confidence": 0.9,
            "scores": "{}",
            "embedding": embed(None, [text])[0],
        }
        for i, text in enumerate(sentences)
    ]
    prediction_log(storage).append(records[::-1])
    if labelled:
        true = {r["prediction_id"]: "positive" if "good" in r["input"] else "negative" for r in records[: count - 5]}
        feedback(storage, true, at=BEGAN + timedelta(days=1), model=spec.name)


def test_the_log_is_replayed_with_the_embeddings_of_the_version_that_answered_first(loop, spec):
    answered(loop.storage, spec, 40)
    asked: list[str] = []

    def counted(folder, inputs):
        asked.extend(inputs)
        return embed(folder, inputs)

    made, version = recording.gather(spec, loop.storage, loop.registry, counted)
    assert version.version == 1
    assert list(made.at) == sorted(made.at)
    assert len(made) == 40 and made.labelled.sum() == 35
    assert set(asked) & set(made.log.table["input"]) == set(made.log.table["input"][20:])
    assert (made.log.points == embed(None, made.log.table["input"])).all()
    assert (made.head(0).label[made.labelled] == made.true[made.labelled]).mean() > 0.9


def test_a_run_takes_its_price_from_the_journal_and_is_told_as_json(loop, spec):
    from pydantic_core import to_json

    answered(loop.storage, spec, 40)
    for state, hours in ((journal.BEGUN, 0), (journal.DONE, 1)):
        clock = Journal(loop.storage, lambda hours=hours: BEGAN + timedelta(hours=hours))
        clock.write(spec.name, journal.RETRAIN, state, "1-3", {"submission_id": "a", "workers": 2})
    tiny = spec.with_values({"monitoring.window": 10})
    made = backtest.run(tiny, loop, variants.policies(tiny), 1, embed)
    assert made.unit == "device-hours" and made.price == 2.0
    assert json.loads(to_json(made))["outcomes"][0]["policy"] == NEVER


def test_a_log_without_labels_or_of_a_lost_version_is_named(loop, spec):
    with pytest.raises(NotFoundError, match="no row with a true label"):
        recording.gather(spec, loop.storage, loop.registry, embed)
    answered(loop.storage, spec, 10, first=3)
    with pytest.raises(NotFoundError, match="no version 3"):
        recording.gather(spec, loop.storage, loop.registry, embed)
