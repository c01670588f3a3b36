"""MLflow tracking: experiments, runs, metrics and files. The only other file that knows MLflow is `registry.py`."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError, UserError
from cluster.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_PARAM_LENGTH = 6000
_MOST_PARAMS = 100  # in one request, by MLflow's own bound


def tracking_uri(settings: Settings) -> str:
    """The configured server, else a SQLite file under a local root.

    Raises UserError for a remote root without a server.
    """
    if settings.tracking_uri:
        return settings.tracking_uri
    if not settings.is_local:
        raise UserError(
            "a storage root on an object store needs an MLflow server",
            where=settings.storage,
            mend="set MLFLOW_TRACKING_URI to a server or a database, such as postgresql://host/mlflow",
        )
    file = _embedded(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{file}"


def _artifacts(settings: Settings) -> str | None:
    """Where an experiment's files go: under the storage root, unless there is a server that has a place for them."""
    if tracking_uri(settings).startswith(("http://", "https://")):
        return None
    if settings.is_local:
        return (Path(settings.storage_root) / "mlflow" / "artifacts").as_uri()
    return f"{settings.storage_root}/mlflow/artifacts"


def _embedded(settings: Settings) -> Path:
    return Path(settings.storage_root) / "mlflow" / "mlflow.db"


@lru_cache(maxsize=4)
def client(uri: str) -> MlflowClient:
    """One client per server and process; MLflow is imported here since it takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    with warnings.catch_warnings():
        # MLflow's own models use a SQLAlchemy loader that SQLAlchemy has deprecated; nothing here to mend.
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        # It tells of every new database, whatever level is set.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@dataclass(frozen=True)
class Used:
    """A dataset version as MLflow keeps it with a run. `profile` is a little JSON that its page shows."""

    name: str
    version: str
    url: str
    profile: Mapping[str, Any]


@dataclass(frozen=True)
class Tracker:
    """Runs of one experiment."""

    settings: Settings
    experiment: str

    @property
    def _client(self) -> MlflowClient:
        return client(tracking_uri(self.settings))

    def _known(self) -> str | None:
        """The experiment's id, None when nothing was ever logged."""
        embedded = self.settings.tracking_uri is None and self.settings.is_local
        if embedded and not _embedded(self.settings).exists():  # a client would take seconds to make it
            return None
        found = self._client.get_experiment_by_name(self.experiment)
        return None if found is None else str(found.experiment_id)

    def _experiment_id(self) -> str:
        known = self._known()
        if known is not None:
            return known
        return str(self._client.create_experiment(self.experiment, artifact_location=_artifacts(self.settings)))

    @contextmanager
    def run(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], dataset: Used | None = None
    ) -> Iterator[Run]:
        """A run that ends FINISHED, or FAILED when the body raises. `dataset` is linked as its input."""
        made = self._client.create_run(self._experiment_id(), run_name=name, tags=dict(tags))
        run = Run(self._client, str(made.info.run_id), str(made.info.artifact_uri))
        run.log_params(params)
        if dataset is not None:
            run.log_dataset(dataset)
        with self._ending(run):
            yield run

    @contextmanager
    def resumed(self, run: Run) -> Iterator[Run]:
        """A run that was cut off, running again; it ends as any other."""
        self._client.update_run(run.id, status="RUNNING")
        with self._ending(run):
            yield run

    @contextmanager
    def _ending(self, run: Run) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._client.set_terminated(run.id, "FAILED")
            raise
        self._client.set_terminated(run.id, "FINISHED")

    def open(self, run_id: str) -> Run:
        """A run that exists already. Raises ClusterError."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            raise ClusterError(f"MLflow has no run {run_id}", where=tracking_uri(self.settings)) from error
        return Run(self._client, run_id, str(found.info.artifact_uri))

    def runs(self, limit: int = 20, *, dataset: str = "") -> list[dict[str, Any]]:
        """The newest runs, of one dataset version if named: id, name, status, start (unix s), metrics, params, tags.

        MLflow's own search finds the latter too: `dataset.digest = '<version>'`. Makes no experiment.
        """
        known = self._known()
        if known is None:
            return []
        of = f"dataset.digest = '{dataset}'" if dataset else ""
        found = self._client.search_runs([known], filter_string=of, max_results=limit)
        return [
            {
                "id": r.info.run_id,
                "name": r.info.run_name,
                "status": r.info.status,
                "start": r.info.start_time / 1000,
                "metrics": dict(r.data.metrics),
                "params": dict(r.data.params),
                "tags": dict(r.data.tags),
            }
            for r in found
        ]


@dataclass(frozen=True)
class Run:
    """One run: metrics by step, and files."""

    _client: MlflowClient
    id: str
    artifact_uri: str

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.id, [Metric(k, float(v), now, step) for k, v in metrics.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        made = [Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in params.items()]
        for first in range(0, len(made), _MOST_PARAMS):
            self._client.log_batch(self.id, params=made[first : first + _MOST_PARAMS])

    def log_dataset(self, used: Used, context: str = "training") -> None:
        """Link a dataset version as an input of the run, as MLflow's pages show it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        made = Dataset(
            name=used.name,
            digest=used.version,
            source_type=used.url.partition("://")[0] if "://" in used.url else "local",
            source=json.dumps({"uri": used.url}),
            profile=json.dumps(dict(used.profile)),
        )
        self._client.log_inputs(self.id, [DatasetInput(made, [InputTag("mlflow.data.context", context)])])

    def log_folder(self, folder: Path, name: str) -> str:
        """Keep a folder with the run and return its URI."""
        self._client.log_artifacts(self.id, str(folder), name)
        return f"{self.artifact_uri}/{name}"

    def log_json(self, value: Any, name: str) -> None:
        self._client.log_dict(self.id, value, name)

    def log_file(self, file: Path) -> None:
        self._client.log_artifact(self.id, str(file))

    def last(self, metric: str) -> float | None:
        """The last value logged; None when there is none."""
        values = self.history(metric)
        return values[-1][1] if values else None

    def history(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) in the order logged."""
        return [(m.step, m.value) for m in self._client.get_metric_history(self.id, metric)]
