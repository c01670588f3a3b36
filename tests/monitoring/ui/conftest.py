from __future__ import annotations

from pathlib import Path

import pytest

from jobs.pipeline import Place
from jobs.spec import Spec

from . import stories


@pytest.fixture
def told(spec: Spec, place: Place, tmp_path: Path) -> Place:
    """A place where a model has lived."""
    stories.registered(place, tmp_path / "files")
    stories.logged(place)
    stories.tell(place, spec)
    return place
