"""How likely golden answers are found: which tokens count, and that what half precision costs is told from a fault."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.models.predictor import Predictor
from serve.engines import likely, parity
from serve.engines.likely import Answers
from tests.serve import writing


@pytest.fixture(scope="module")
def answers(version: Path, plain: Predictor) -> Answers:
    return Answers.of(plain, parity.golden(version))


def test_the_tokens_of_answers_count_and_those_of_inputs_do_not() -> None:
    answers = Answers([[5, 6, 7, 8], [5, 9]], [2, 2], [[-1.0, -2.0, -3.0], [-1.0]])
    found = [[-9.0, -2.5, -2.0], [-7.0]]
    assert [one.tolist() for one in answers.differences(found)] == [[0.5, 1.0], []]
    assert answers.apart(found) == pytest.approx(0.75)
    assert Answers([], [], []).apart([]) == 0
    assert np.isnan(answers.apart([[0.0, np.nan, 0.0], [0.0]]))


def test_the_trainer_is_not_apart_from_itself_and_rounding_leaves_it_as_it_was(
    plain: Predictor, answers: Answers
) -> None:
    assert all(
        len(row) > begin == len(prompt)
        for row, begin, prompt in zip(answers.rows, answers.begins, plain.prompts(writing.INPUTS), strict=True)
    )
    before = likely.by_torch(plain.net, answers.rows)
    costs = [answers.apart(likely.rounded(plain.net, answers.rows, dtype)) for dtype in ("float16", "bfloat16", "auto")]
    assert 0 < 4 * costs[0] < costs[1] == costs[2] < 0.1
    assert answers.apart(before) == answers.apart(likely.by_torch(plain.net, answers.rows)) == 0
    assert next(plain.net.parameters()).dtype == torch.float32


def test_wrong_weights_are_further_away_than_rounding(plain: Predictor, answers: Answers) -> None:
    wrong = copy.deepcopy(plain.net)
    with torch.no_grad():
        wrong.model.layers[0].mlp.up_proj.weight.mul_(0.5)
    own, found = (answers.apart(likely.rounded(net, answers.rows, "bfloat16")) for net in (plain.net, wrong))
    assert found > 3 * own
