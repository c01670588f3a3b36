"""A folder becomes a version in the registry, as `publish` makes one, whatever is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cluster.settings import Settings
from cluster.store.registry import ModelVersion, Registry
from cluster.store.tracking import Tracker


def register(settings: Settings, model: str, folder: Path, tags: Mapping[str, str]) -> ModelVersion:
    with Tracker(settings, model).run("made", {}, {}) as run:
        source = run.log_folder(folder, "model")
    return Registry(settings).register(model, run.id, source, dict(tags))
