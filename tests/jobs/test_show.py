from __future__ import annotations

from cluster.store.registry import ModelVersion
from jobs import show
from jobs.data import preparation
from jobs.pipeline import Place
from jobs.spec import Spec
from jobs.sweep.record import Importance
from jobs.tune import Swept, Trial

TRIALS = (
    Trial("a", {"training.learning_rate": 0.1}, 0.5, 0.8, 2.0, "finished"),
    Trial("b", {"training.learning_rate": 9.0}, None, None, 0.0, "failed", "diverged"),
    Trial("c", {"training.learning_rate": 0.02}, 0.25, 0.9, 1.0, "stopped"),
)


def body(text: str) -> list[list[str]]:
    """The words of each line below a table's rule."""
    lines = text.splitlines()
    rule = next(at for at, line in enumerate(lines) if set(line.strip()) == {"─"})
    return [line.split() for line in lines[rule + 1 :]]


def test_a_dataset_counts_its_rows_and_what_was_dropped(spec: Spec, place: Place) -> None:
    made = preparation.prepare(spec, place.storage)
    text = show.dataset(made)
    for split in ("train", "validation", "test"):
        counts = [*made.counts[split].values(), made.size(split)]
        assert [split, *map(str, counts)] in body(text)
    assert text.endswith("dropped: nothing")


def test_a_sweep_is_ranked_and_a_failed_trial_says_why() -> None:
    rows = body(show.sweep(Swept(TRIALS)))
    assert [row[0] for row in rows] == ["c", "a", "b", "importance:"]
    assert rows[2][-1] == "diverged"
    assert show.sweep(Swept(TRIALS)).endswith("importance: not told; no key had two values")


def test_a_sweep_says_which_keys_mattered_or_why_it_cannot() -> None:
    told = Importance({"training.learning_rate": 0.8, "method.rank": 0.2}, 12, 1.0)
    said = "importance: training.learning_rate 0.80, method.rank 0.20 of the variance of the loss after 1 epochs, 12 trials"
    assert show.sweep(Swept(TRIALS, told)).endswith(said)
    assert "3 trials are too few" in show.sweep(Swept(TRIALS, Importance(note="3 trials are too few, 8 would do")))


def test_versions_name_their_aliases_and_none_is_said() -> None:
    version = ModelVersion("m", 3, "0123456789", "file:/x", {"dataset": "abc"}, ("champion",), 0.0)
    assert body(show.versions([version]))[0][:5] == ["m", "3", "champion", "abc", "01234567"]
    assert "rehone train" in show.versions([])
