"""Settings of the place rehone runs in, from the environment. What a run does is in the spec, not here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from .errors import UserError
from .store import private

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_VARIABLES = {
    "storage": "REHONE_STORAGE",
    "storage_shared": "REHONE_STORAGE_SHARED",
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "address": "RAY_API_SERVER_ADDRESS",
    "spool": "REHONE_SPOOL",
    "cpu_watts": "REHONE_CPU_WATTS",
    "gpu_watts": "REHONE_GPU_WATTS",
    "grid_grams": "REHONE_GRID_GRAMS",
    "cpu_hour_price": "REHONE_CPU_HOUR_PRICE",
    "gpu_hour_price": "REHONE_GPU_HOUR_PRICE",
    "notify": "REHONE_NOTIFY",
}
_OWN = {"notify"}  # not for jobs and replicas


class Settings(BaseModel):
    """Read once where a command starts (`Settings.from_environment()`) and handed on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    storage: str = "./.rehone"
    """Storage root: a folder or an fsspec URL (`s3://bucket/prefix`). `REHONE_STORAGE`."""
    storage_shared: bool | None = None
    """Whether a local storage root is the same folder on every node, such as an NFS mount. `REHONE_STORAGE_SHARED`."""
    tracking_uri: str | None = None
    """MLflow server; without it SQLite under a local storage root. `MLFLOW_TRACKING_URI`."""
    address: str | None = None
    """Job API of a running Ray cluster. `RAY_API_SERVER_ADDRESS`."""
    spool: str | None = None
    """Folder local to the node where replicas spool predictions. `REHONE_SPOOL`."""
    cpu_watts: Amount | None = None
    """Watts of one busy CPU core with its share of the machine. `REHONE_CPU_WATTS`."""
    gpu_watts: Amount | None = None
    """Watts of one busy GPU. `REHONE_GPU_WATTS`."""
    grid_grams: Amount | None = None
    """Grams of CO2 equivalent for one kWh from the grid. `REHONE_GRID_GRAMS`."""
    cpu_hour_price: Amount | None = None
    """Price of one CPU core for an hour. `REHONE_CPU_HOUR_PRICE`."""
    gpu_hour_price: Amount | None = None
    """Price of one GPU for an hour, in the same currency. `REHONE_GPU_HOUR_PRICE`."""
    notify: SecretStr | None = None
    """Apprise URLs of the channels the watch tells people through, parted by spaces. `REHONE_NOTIFY`."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises UserError when a variable does not hold what it is to hold."""
        given = {field: os.environ[name] for field, name in _VARIABLES.items() if os.environ.get(name)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            fault = error.errors()[0]
            name = _VARIABLES[str(fault["loc"][0])]
            raise UserError(
                f"{fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}", where=name
            ) from None

    @property
    def is_local(self) -> bool:
        return "://" not in self.storage

    @property
    def storage_root(self) -> str:
        """The root as an absolute path or URL, so that it means the same in every process."""
        return str(Path(self.storage).expanduser().resolve()) if self.is_local else self.storage.rstrip("/")

    @property
    def spool_root(self) -> Path:
        """Spools are local files even when the storage root is an object store: then in this user's own folder.

        Raises UserError where that is somebody else's.
        """
        if self.spool:
            return Path(self.spool).expanduser().resolve()
        base = Path(self.storage_root) if self.is_local else private.folder()
        return base / "spool"

    def of_replica(self) -> Settings:
        """What a replica uses and nothing else: Serve keeps what it starts replicas with, and `notify` is a secret."""
        return Settings(storage=self.storage_root, tracking_uri=self.tracking_uri, spool=self.spool)

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a job or a replica: without what only the watch needs."""
        values = self.model_dump(exclude=_OWN) | {"storage": self.storage_root}
        known = {name: values.get(field) for field, name in _VARIABLES.items()}
        return {name: str(value) for name, value in known.items() if value not in {None, ""}}
