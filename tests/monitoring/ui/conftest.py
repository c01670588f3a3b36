from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.settings import Settings
from jobs import specfile
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import promotion

from . import stories


@pytest.fixture(scope="session")
def spec() -> Spec:
    return Spec.model_validate(
        {"name": stories.NAME, "base_model": "anything", "data": {"source": "/anything.csv"}}
        | {"monitoring": {"consecutive": 3, "min_labels": 200}}
    )


@pytest.fixture(scope="session")
def lived(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where a model has lived, to look at only."""
    root = tmp_path_factory.mktemp("lived")
    place = Place.from_settings(Settings(storage=str(root / "store")))
    stories.registered(place, root / "files")
    stories.tell(place, spec)
    return place


@pytest.fixture
def spec_file(spec: Spec, tmp_path: Path) -> Path:
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(spec))
    return file


@pytest.fixture
def told(lived: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy of it, to act in. Its versions have no files: nothing could answer as one of them."""
    monkeypatch.setattr(promotion, "_certify", lambda *_: None)
    shutil.copytree(lived.settings.storage, tmp_path / "store")
    return Place.from_settings(Settings(storage=str(tmp_path / "store")))
