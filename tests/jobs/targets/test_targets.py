from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF
from sklearn import metrics as theirs

from jobs.targets import Metric, Targets, label, labels, spans, text

NAMES = ["a", "b", "c"]
sets = st.lists(st.sampled_from(NAMES), unique=True)
writing = st.text("abc de", min_size=1, max_size=12).filter(str.strip)


def value(metric: Metric, true: Sequence[str], predicted: Sequence[str]) -> float:
    (rows,) = metric.statistics(true, [predicted])
    return float(metric.value(rows.sum(0)))


@given(st.lists(st.tuples(sets, sets), min_size=1, max_size=20))
def test_several_labels_are_scored_as_scikit_learn_does(pairs) -> None:
    true, said = ([labels.joined(names) for names in side] for side in zip(*pairs, strict=True))
    marks = [np.array([[name in row for name in NAMES] for row in side]) for side in zip(*pairs, strict=True)]
    occurs = (marks[0] | marks[1]).any(0)
    if not occurs.any():
        assert value(labels.METRICS["micro_f1"], true, said) == 0
        return
    each = theirs.f1_score(*marks, average=None, zero_division=0)
    assert value(labels.METRICS["micro_f1"], true, said) == pytest.approx(
        theirs.f1_score(*marks, average="micro", zero_division=0)
    )
    assert value(labels.METRICS["macro_f1"], true, said) == pytest.approx(each[occurs].mean())
    assert value(labels.METRICS["exact_match"], true, said) == pytest.approx((marks[0] == marks[1]).all(1).mean())


PERSON, PLACE = {"start": 0, "end": 4, "label": "PER"}, {"start": 10, "end": 15, "label": "LOC"}


@pytest.mark.parametrize(
    ("true", "said", "expected"),
    [
        ([[PERSON, PLACE]], [[PERSON, PLACE]], 1.0),
        ([[PERSON, PLACE]], [[PERSON]], 2 / 3),
        ([[PERSON]], [[{**PERSON, "label": "LOC"}]], 0.0),
        ([[PERSON]], [[{**PERSON, "end": 3}]], 0.0),  # a part of a span is no span
        ([[PERSON], [PLACE]], [[PERSON, PLACE], []], 0.5),  # nor is one of another row
        ([[PERSON], []], [[PERSON], [PLACE]], 2 / 3),
        ([[]], [[]], 0.0),
    ],
)
def test_spans_are_scored_as_conll_does(true, said, expected) -> None:
    targets = [[spans.read(row) for row in side] for side in (true, said)]
    assert value(spans.METRICS["f1"], *targets) == pytest.approx(expected)


@given(st.lists(st.tuples(writing, writing), min_size=1, max_size=8))
def test_chrf_is_sacrebleus(pairs) -> None:
    true, said = map(list, zip(*pairs, strict=True))
    expected = CHRF().corpus_score(said, [true]).score / 100
    assert value(text.METRICS["chrf"], true, said) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "true", "said", "expected"),
    [
        ("word_accuracy", ["one two three four"], ["one too three"], 0.5),
        ("word_accuracy", ["one"], ["so many more words"], -3.0),
        ("character_accuracy", ["abcd", "ab"], ["abxd", "ab"], 5 / 6),
        ("rouge_l", ["The cat sat down"], ["the cat lay down"], 0.75),
        ("exact_match", ["a", "b"], ["a", "c"], 0.5),
    ],
)
def test_what_is_written_is_scored_by_hand(metric: str, true: list[str], said: list[str], expected: float) -> None:
    assert value(text.METRICS[metric], true, said) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("targets", "cell", "expected"),
    [
        (label, 3.0, "3.0"),
        (label, None, ""),
        (labels, "b | a|b", "a|b"),
        (labels, '["b", "a"]', "a|b"),
        (labels, ["b", "a"], "a|b"),
        (labels, np.array([]), "none"),
        (labels, "none", "none"),
        (labels, "", ""),
        (spans, [], "[]"),
        (spans, "", ""),
        (text, "  so it is ", "so it is"),
    ],
)
def test_cells_are_read(targets: Targets, cell: object, expected: str) -> None:
    assert targets.read(cell) == expected


@pytest.mark.parametrize(
    ("targets", "cell", "said"),
    [
        (labels, ["a|b"], "is no list of labels"),
        (labels, "a||b", "is no list of labels"),
        (spans, '{"start": 0}', "is no list of spans"),
        (spans, '[{"start": 3, "end": 3, "label": "x"}]', "which marks nothing"),
        (spans, '[{"start": 0, "end": 3, "label": "x"}, {"start": 2, "end": 4, "label": "x"}]', "overlap"),
        (spans, "not JSON", "is no list of spans"),
        (spans, '[{"start": "a", "end": 3, "label": "x"}]', "is no list of spans"),
    ],
)
def test_cells_that_cannot_be_read_say_what_is_wrong(targets: Targets, cell: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        targets.read(cell)


@given(st.text(max_size=30))
def test_whatever_is_sent_as_a_true_label_is_taken_or_refused(given_text: str) -> None:
    for targets in (label, labels, spans, text):
        fault = targets.fault(given_text, NAMES)
        assert isinstance(fault, str)
        if not fault and targets is not text:
            assert set(targets.parts(given_text)) <= set(NAMES)


@given(sets)
def test_a_set_reads_back(names: list[str]) -> None:
    target = labels.joined(names)
    assert labels.read(target) == target
    assert sorted(labels.parts(target)) == sorted(names)
    assert labels.fault(target, NAMES) == ""


def test_spans_are_in_the_order_of_the_text() -> None:
    given_spans = [{"start": 4, "end": 6, "label": "b"}, {"start": 0, "end": 2, "label": "a"}]
    assert json.loads(spans.read(given_spans)) == given_spans[::-1]


@pytest.mark.parametrize(
    ("targets", "answers", "expected"),
    [
        (label, ["a", "b"], {"predicted label": ["a", "b"]}),
        (labels, ["a|b", "none"], {"labels given": [2, 0], "label a": [1, 0], "label b": [1, 0]}),
        (spans, ['[{"start": 0, "end": 1, "label": "a"}]', "[]"], {"spans of a": [1, 0], "spans of b": [0, 0]}),
        (text, ["three words here", "one"], {"words of the answer": [3, 1]}),
    ],
)
def test_what_is_watched_of_answers(targets: Targets, answers: list[str], expected: dict[str, list[object]]) -> None:
    assert targets.watched(answers, ["a", "b"]).to_dict("list") == expected
