"""Settings of the place rehone runs in, from the environment. What a run does is in the spec, not here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Read once where a command starts (`Settings.from_environment()`) and handed on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    storage: str = "./.rehone"
    """Storage root: a folder or an fsspec URL (`s3://bucket/prefix`). `REHONE_STORAGE`."""
    tracking_uri: str | None = None
    """MLflow server; without it SQLite under a local storage root. `MLFLOW_TRACKING_URI`."""
    address: str | None = None
    """Job API of a running Ray cluster. `RAY_API_SERVER_ADDRESS`."""
    spool: str | None = None
    """Folder local to the node where replicas spool predictions. `REHONE_SPOOL`."""

    @classmethod
    def from_environment(cls) -> Settings:
        names = {
            "storage": "REHONE_STORAGE",
            "tracking_uri": "MLFLOW_TRACKING_URI",
            "address": "RAY_API_SERVER_ADDRESS",
            "spool": "REHONE_SPOOL",
        }
        return cls(**{field: os.environ[name] for field, name in names.items() if os.environ.get(name)})

    @property
    def is_local(self) -> bool:
        return "://" not in self.storage

    @property
    def storage_root(self) -> str:
        """The root as an absolute path or URL, so that it means the same in every process."""
        return str(Path(self.storage).expanduser().resolve()) if self.is_local else self.storage.rstrip("/")

    @property
    def spool_root(self) -> Path:
        """Spools are local files even when the storage root is an object store."""
        if self.spool:
            return Path(self.spool).expanduser().resolve()
        base = Path(self.storage_root) if self.is_local else Path(tempfile.gettempdir()) / "rehone"
        return base / "spool"

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a job or a replica."""
        pairs = {
            "REHONE_STORAGE": self.storage_root,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "RAY_API_SERVER_ADDRESS": self.address,
            "REHONE_SPOOL": self.spool,
        }
        return {name: value for name, value in pairs.items() if value}
