"""Many adapters on one base: each answers as it does alone, whoever it is with in a batch."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cluster.errors import UserError
from jobs.explain.words import TextExplanation
from jobs.models.adapters import Base
from jobs.models.predictor import Predictor
from jobs.spec import Spec
from jobs.tasks.task import Output
from tests import adapters
from tests.adapters import TEXTS

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 1e-4  # of numbers near 1: a merged adapter is added up in another order
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, spec: Spec) -> Write:
    """Files of a version, made with a seed and with values of the spec."""

    def made(seed: int, labels: Sequence[str] = adapters.LABELS, **values: object) -> Path:
        given = spec.with_values({name.replace("__", "."): value for name, value in values.items()})
        return adapters.write(tmp_path / f"version{seed}", given, seed, labels)

    return made


@pytest.fixture
def base(spec: Spec) -> Base:
    return Base(spec.base_model, spec.task)


def apart(one: Sequence[Output], other: Sequence[Output]) -> float:
    """The largest difference of a score, or of a number of the embedding."""
    assert [list(output.scores) for output in one] == [list(output.scores) for output in other]
    pairs = list(zip(one, other, strict=True))
    scores = max(abs(a.scores[label] - b.scores[label]) for a, b in pairs for label in a.scores)
    return max(scores, *(float(abs(a.embedding - b.embedding).max()) for a, b in pairs))


def test_rows_of_many_models_in_one_batch_get_what_each_model_says_alone(base: Base, write: Write) -> None:
    folders = [write(seed) for seed in range(1, 5)]
    together = [base.load(folder) for folder in folders]
    alone = [Predictor.load(folder) for folder in folders]
    asked = [(together[at], TEXTS[: at + 3]) for at in (2, 0, 3, 1, 0)]
    answers = base.answer(asked)
    assert [len(outputs) for outputs in answers] == [len(inputs) for _, inputs in asked]
    for (predictor, inputs), outputs in zip(asked, answers, strict=True):
        assert apart(outputs, alone[together.index(predictor)](inputs)) < NEAR
        assert apart(outputs, predictor(inputs)) < NEAR
    # They do differ, or this would show nothing.
    assert apart(alone[0](TEXTS), alone[1](TEXTS)) > 0.1


def test_a_batch_of_several_is_as_many_passes_as_one_model_alone_needs(base: Base, write: Write) -> None:
    made = [base.load(write(seed)) for seed in (1, 2, 3)]
    passes: list[int] = []
    base.net.register_forward_pre_hook(lambda *_: passes.append(1))
    made[0](TEXTS * 3)
    needed = len(passes)
    passes.clear()
    base.answer([(predictor, TEXTS) for predictor in made])
    assert len(passes) == needed


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        pytest.param(("a", "b", "c", "d"), {}, id="another number of labels"),
        pytest.param(adapters.LABELS, {"training__max_length": 8}, id="other bounds"),
        pytest.param(adapters.LABELS, {"method__name": "dora"}, id="DoRA"),
        pytest.param(adapters.LABELS, {"method__name": "rslora", "method__rank": 3}, id="another rank"),
        pytest.param(adapters.LABELS, {"method__target_modules": ["query"]}, id="other modules"),
        pytest.param(adapters.LABELS, {"method__target_modules": ["embeddings.word_embeddings"]}, id="embeddings"),
    ],
)
def test_adapters_that_are_not_alike_share_a_base_too(base: Base, write: Write, labels, values) -> None:
    folders = [write(1), write(2, labels, **values), write(3)]
    together, alone = [base.load(folder) for folder in folders], [Predictor.load(folder) for folder in folders]
    for outputs, predictor in zip(base.answer([(one, TEXTS) for one in together]), alone, strict=True):
        assert apart(outputs, predictor(TEXTS)) < NEAR
    again = base.load(folders[0])
    assert apart(again(TEXTS), alone[0](TEXTS)) < NEAR


def test_an_adapter_is_there_as_long_as_somebody_holds_it(base: Base, write: Write) -> None:
    folders = [write(seed) for seed in (1, 2, 3)]
    first, second, third = map(base.load, folders)
    weights = base.weight_bytes
    assert base.adapters == 3
    wanted = third(TEXTS)
    del first, second
    assert base.adapters == 1
    assert base.weight_bytes < weights
    assert third(TEXTS)[0].scores == pytest.approx(wanted[0].scores, abs=1e-6)
    back = base.load(folders[0])
    assert base.adapters == 2
    assert apart(base.answer([(back, TEXTS), (third, TEXTS)])[1], wanted) < NEAR
    del back, third
    gc.collect()
    assert base.adapters == 1  # PEFT's layers need one; it goes when the next comes
    assert apart(base.load(folders[1])(TEXTS), Predictor.load(folders[1])(TEXTS)) < NEAR
    assert base.adapters == 1


def test_explanations_are_the_adapters_own(base: Base, write: Write) -> None:
    folders = [write(seed) for seed in (1, 2)]
    for folder, shared in [(folder, base.load(folder)) for folder in folders]:
        ours, theirs = shared.explain(TEXTS[0], None, 8), Predictor.load(folder).explain(TEXTS[0], None, 8)
        assert isinstance(ours, TextExplanation)
        assert isinstance(theirs, TextExplanation)
        assert (ours.label, ours.score) == (theirs.label, pytest.approx(theirs.score, abs=1e-4))
        assert [word.attribution for word in ours.words] == pytest.approx(
            [word.attribution for word in theirs.words], abs=1e-3
        )


@pytest.mark.long
def test_threads_that_ask_load_and_explain_at_once_get_what_they_would_alone(base: Base, write: Write) -> None:
    folders = [write(seed) for seed in range(1, 5)]
    wanted = [Predictor.load(folder)(TEXTS) for folder in folders]
    first = base.load(folders[0])
    faults: list[BaseException] = []

    def work(at: int) -> None:
        try:
            for _ in range(6):
                mine = base.load(folders[at])
                assert apart(base.answer([(mine, TEXTS), (first, TEXTS)])[0], wanted[at]) < NEAR
                mine.explain(TEXTS[1], None, 4)
        except BaseException as error:
            faults.append(error)
            raise

    threads = [threading.Thread(target=work, args=(at,)) for at in range(1, 4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert apart(first(TEXTS), wanted[0]) < NEAR
    for thread in threads:
        thread.join()
    assert not faults
    del work, threads, thread
    gc.collect()
    assert base.adapters == 1


def test_what_shares_no_base_is_refused_and_leaves_nothing(base: Base, write: Write, tmp_path: Path) -> None:
    good = base.load(write(1))
    with pytest.raises(UserError, match="is a whole model, no adapter"):
        base.load(write(2, method__name="full"))
    with pytest.raises(UserError, match="is an adapter of the kind IA3; LoRA and DoRA share a base"):
        base.load(write(3, method__name="ia3", method__target_modules=["query"]))
    with pytest.raises(UserError, match=r"is a .+, and here is another for text-classification"):
        Base("another", "text-classification").load(tmp_path / "version1")
    cut = write(4) / "adapter" / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(Exception, match=r"(?i)header|incomplete|deserializ"):
        base.load(cut.parent.parent)
    assert base.adapters == 1
    assert apart(good(TEXTS), Predictor.load(tmp_path / "version1")(TEXTS)) < NEAR
