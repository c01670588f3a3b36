from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ClusterError
from serve import engine

from . import fakes


def test_a_version_that_answers_as_its_trainer_is_admitted(tmp_path: Path) -> None:
    made = engine.load(fakes.version(3), fakes.write_version(tmp_path / "3", 0.75), fakes.load)
    assert made.version.version == 3
    assert made.labels == fakes.LABELS


def test_one_that_does_not_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder = fakes.write_version(tmp_path / "3", 0.75, golden=0.70)
    with pytest.raises(ClusterError, match=r"m version 3: answers the golden inputs 0\.05 away from its trainer"):
        engine.load(fakes.version(3), folder, fakes.load)
