"""Fixtures: a place to keep things, a tiny model to train, and one Ray for the whole session."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from cluster.session import connect, prepare_environment
from cluster.settings import Settings
from cluster.store import registry, tracking
from jobs import tune
from jobs.pipeline import Place
from jobs.spec import Spec
from tests import tiny

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

settings.register_profile("house", deadline=None, max_examples=50)  # a busy machine is slow, not wrong
settings.register_profile("quick", deadline=None, max_examples=10)  # `make check`
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def _private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray writes tokens and datasets its cache under HOME: not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("HF_DATASETS_CACHE", str(home / "datasets"))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        for name in ("REHONE_STORAGE", "REHONE_SPOOL", "MLFLOW_TRACKING_URI", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        prepare_environment()
        yield


@pytest.fixture(scope="session", autouse=True)
def _databases_are_copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new MLflow database is made by all of MLflow's migrations, in seconds: once here, and copied from then on."""
    made, sqlite = tracking.client, "sqlite:///"

    @cache
    def template() -> Path:
        file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
        made(f"{sqlite}{file}").search_experiments()
        return file

    def client(uri: str) -> MlflowClient:
        file = Path(uri.removeprefix(sqlite))
        if uri.startswith(sqlite) and not file.exists():
            shutil.copyfile(template(), file)
        return made(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "client", client)
        patch.setattr(registry, "client", client)
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a replica has it; on a busy machine several threads of torch wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """For training in this process; once, since DeepSpeed holds on to the first group it sees."""
    with tune.alone():
        yield


@pytest.fixture(scope="session")
def storage_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def spec(tmp_path: Path, base_model: Path) -> Spec:
    return tiny.spec(tmp_path, base_model)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.from_settings(Settings(storage=str(tmp_path / "store")))


@pytest.fixture(scope="session")
def ray_session(_private_home: None, storage_root: Path) -> Iterator[str]:
    """The job API's address of one local Ray with more CPUs than the machine has."""
    with ExitStack() as stack:
        # The port that Ray's agent asks for when nobody says otherwise: as when another local Ray runs here.
        with suppress(OSError):
            stack.enter_context(socket.create_server(("", 52365)))
        address = stack.enter_context(connect(Settings(storage=str(storage_root)), num_cpus=8, dashboard=True))
        assert address is not None
        yield address
