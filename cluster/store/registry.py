"""MLflow's model registry: versions of one model, moved between by alias.

`champion` serves, `challenger` awaits its verdict, `previous` is what a rollback returns to, `canary` is on trial with
a part of the traffic.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.errors import NotFoundError
from cluster.settings import Settings

from . import fetched
from .tracking import client, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000
_KEPT = 3  # versions of a model that stay fetched on a machine
FILES = "files"
"""The tag with the digest of a version's files (`fetched.digest`)."""
CHAMPION, CHALLENGER, PREVIOUS, CANARY = "champion", "challenger", "previous", "canary"


@dataclass(frozen=True)
class ModelVersion:
    """One registered version. `source` is the URI of its files; `tags` hold dataset, spec hash and the like."""

    model: str
    version: int
    run: str
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created: float
    """Unix seconds."""


class Registry:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def _client(self) -> MlflowClient:
        return client(tracking_uri(self.settings))

    def register(self, model: str, run: str, source: str, tags: Mapping[str, str]) -> ModelVersion:
        """A new version, which becomes `challenger`."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self._client.create_model_version(model, source=source, run_id=run, tags=dict(tags))
        self._client.set_registered_model_alias(model, CHALLENGER, made.version)
        return self.get(model, int(made.version))

    def versions(self, model: str) -> list[ModelVersion]:
        """Oldest first; empty when the model is not known."""
        aliases = self._aliases(model)
        if aliases is None:
            return []
        found = self._client.search_model_versions(f"name='{model}'")
        made = (_version(v, [alias for alias, at in aliases.items() if at == int(v.version)]) for v in found)
        return sorted(made, key=lambda v: v.version)

    def models(self) -> list[str]:
        return sorted(m.name for m in self._registered())

    def aliases(self) -> dict[str, dict[str, int]]:
        """Version by alias of each model that has any alias; one question for a thousand models."""
        return {
            one.name: {alias: int(at) for alias, at in one.aliases.items()} for one in self._registered() if one.aliases
        }

    def get(self, model: str, version: int) -> ModelVersion:
        """Raises NotFoundError."""
        found = _asked(lambda: self._client.get_model_version(model, str(version)))
        if found is None:
            raise NotFoundError(f"model {model!r} has no version {version}", mend="see `rehone models`")
        return _version(found, found.aliases)

    def find(self, model: str, alias: str) -> ModelVersion | None:
        """The version an alias points to, if any. One question, since every replica asks it every second."""
        found = _asked(lambda: self._client.get_model_version_by_alias(model, alias))
        return None if found is None else _version(found, found.aliases)

    def champion(self, model: str) -> ModelVersion:
        """Raises NotFoundError when nothing was promoted yet."""
        found = self.find(model, CHAMPION)
        if found is None:
            raise NotFoundError(f"model {model!r} has no champion", mend="train one with `rehone train SPEC`")
        return found

    def promote(self, model: str, version: int) -> ModelVersion:
        """Make a version champion; the old champion becomes `previous`. Doing it twice changes nothing."""
        self.get(model, version)
        aliases = self._aliases(model) or {}
        champion = aliases.get(CHAMPION)
        if champion != version:
            # `previous` first: killed in between, a rollback target exists and the old champion still serves.
            if champion is not None:
                self._client.set_registered_model_alias(model, PREVIOUS, str(champion))
            self._client.set_registered_model_alias(model, CHAMPION, str(version))
        if aliases.get(CHALLENGER) == version:
            self._client.delete_registered_model_alias(model, CHALLENGER)
        return self.get(model, version)

    def previous(self, model: str) -> ModelVersion:
        """What a rollback returns to. Raises NotFoundError."""
        found = self.find(model, PREVIOUS)
        if found is None:
            raise NotFoundError(f"model {model!r} has no previous champion to return to", mend="see `rehone models`")
        return found

    def retire(self, model: str) -> ModelVersion:
        """The champion becomes `previous`, and nothing is champion. Raises NotFoundError when nothing was."""
        champion = self.champion(model)
        # `previous` first: killed in between, what is served can still be told.
        self._client.set_registered_model_alias(model, PREVIOUS, str(champion.version))
        self._client.delete_registered_model_alias(model, CHAMPION)
        return self.get(model, champion.version)

    def dismiss(self, model: str) -> None:
        """The challenger lost: it stays a version and is no longer `challenger`."""
        if CHALLENGER in (self._aliases(model) or {}):
            self._client.delete_registered_model_alias(model, CHALLENGER)

    def try_out(self, model: str, version: int) -> None:
        """Put a version on trial: it becomes `canary`, in the place of another one, and is no longer `challenger`."""
        self._client.set_registered_model_alias(model, CANARY, str(version))
        self.dismiss(model)

    def end_trial(self, model: str) -> None:
        """Nothing is `canary` any more."""
        if CANARY in (self._aliases(model) or {}):
            self._client.delete_registered_model_alias(model, CANARY)

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(model, str(version), key, value)

    def download(self, version: ModelVersion) -> Path:
        """Local folder with the version's files: the very folder when the store is local, else fetched once a machine.

        What was fetched stays while this process uses it, beside those that were asked for last (`fetched.py`). It is
        what was registered to the last byte; of a version whose tags do not say that (`FILES`), whatever is there.
        Raises ClusterError when it is not.
        """
        if _lies_here(version):
            return self._got(version.source, None)
        # A machine may know several registries, in each of which there is a version 1.
        name = f"{version.version}-{hashlib.sha256(version.source.encode()).hexdigest()[:16]}"
        group = hashlib.sha256(version.model.encode()).hexdigest()[:16]

        def fetch(part: Path) -> None:
            with tempfile.TemporaryDirectory(dir=part.parent, suffix=".part") as folder:
                self._got(version.source, folder).replace(part)

        def sound(folder: Path) -> bool:
            wanted = version.tags.get(FILES)
            return wanted is None or fetched.digest(folder) == wanted

        return fetched.kept(f"versions/{group}", name, _KEPT, fetch, sound)

    def read(self, version: ModelVersion, name: str) -> bytes:
        """One file of a version, without fetching the rest. Raises NotFoundError."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            try:
                where = None if _lies_here(version) else folder
                return self._got(f"{version.source}/{name}", where).read_bytes()
            except (MlflowException, OSError) as error:
                raise NotFoundError(f"{version.model} version {version.version} has no {name}") from error

    def _got(self, uri: str, folder: str | None) -> Path:
        """Fetched into a folder, or where it lies."""
        from mlflow.artifacts import download_artifacts

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in tracking.client
            return Path(download_artifacts(uri, dst_path=folder, tracking_uri=tracking_uri(self.settings)))

    def _registered(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _aliases(self, model: str) -> dict[str, int] | None:
        """None when there is no such model."""
        found = _asked(lambda: self._client.get_registered_model(model))
        return None if found is None else {alias: int(version) for alias, version in found.aliases.items()}


def _lies_here(version: ModelVersion) -> bool:
    return urlsplit(version.source).scheme in {"", "file"}


def _asked(question: Callable[[], Any]) -> Any:
    """MLflow's answer, None when it knows no such thing, be it that it refuses the very name."""
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None


def _version(found: Any, aliases: Iterable[str]) -> ModelVersion:
    return ModelVersion(
        model=found.name,
        version=int(found.version),
        run=found.run_id,
        source=found.source,
        tags=dict(found.tags),
        aliases=tuple(sorted(aliases)),
        created=found.creation_timestamp / 1000,
    )
