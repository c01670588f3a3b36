from __future__ import annotations

import pickle

import pytest

from cluster import errors
from cluster.errors import RehoneError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RehoneError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_process_border(kind: type[RehoneError]) -> None:
    made = kind("is wrong", where="spec.yaml", mend="write it right")
    back = pickle.loads(pickle.dumps(made))
    assert type(back) is kind
    assert str(back) == str(made) == "spec.yaml: is wrong (write it right)"


def test_exit_codes_are_the_documented_ones() -> None:
    assert {kind.__name__: kind.exit_code for kind in KINDS} == {
        "RehoneError": 1,
        "UserError": 2,
        "SpecError": 2,
        "DataError": 2,
        "NotFoundError": 2,
        "ClusterError": 1,
        "TrainingError": 1,
        "GateRefusedError": 3,
        "JobFailedError": 1,
        "DetachedError": 130,
    }


def test_stdlib_parents_let_callers_catch_what_they_know() -> None:
    assert issubclass(errors.UserError, ValueError)
    assert issubclass(errors.ClusterError, RuntimeError)
