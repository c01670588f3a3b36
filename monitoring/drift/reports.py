"""Where drift reports are kept: an HTML file for people, a run in an Evidently workspace for its own UI.

drift/<model>/<version>-<number>-summary.html    what moved, in words and pictures (`page.py`)
drift/<model>/<version>-<number>.html            Evidently's, opens in a browser, no network needed
drift/workspace/                                 `evidently ui --workspace` shows all runs (a local storage root)
drift/<model>/<version>-<number>.json            Evidently's snapshot instead (any other storage root)
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING

from cluster.store.storage import Storage

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

UI = "workspace"
WORKSPACE = f"drift/{UI}"


def keep(storage: Storage, model: str, key: str, snapshot: Snapshot) -> str:
    """Store a report and return its HTML file's path under the storage root. The same key again replaces it."""
    run(storage, model, key, snapshot)
    path = f"drift/{model}/{key}.html"
    storage.write_bytes(path, snapshot.get_html_str(as_iframe=False).encode())
    return path


def run(storage: Storage, model: str, key: str, snapshot: Snapshot) -> None:
    """Store a report for Evidently's UI, without the megabytes of its HTML. The same key again replaces it."""
    name = f"{model} {key}"
    snapshot.set_name(name)
    if "://" in storage.root:
        storage.write_bytes(f"drift/{model}/{key}.json", snapshot.dumps().encode())
    else:
        _to_workspace(storage.url(WORKSPACE), model, name, snapshot)


def forget(storage: Storage, model: str, keys: Collection[str]) -> int:
    """Remove whatever is kept of some windows; how many files that were. What is in the journal stays."""
    runs = [*keys, *(f"{key}-quality" for key in keys)]
    kept = {f"{run}{end}" for run in runs for end in (".html", "-summary.html", ".json")}
    snapshots = {f"{_snapshot(model, f'{model} {run}')}.json" for run in runs}
    gone = 0
    for place, names in ((f"drift/{model}", kept), (f"{WORKSPACE}/{_project(model)}/snapshots", snapshots)):
        for name in names.intersection(storage.list(place)):
            storage.remove(f"{place}/{name}")
            gone += 1
    return gone


def _project(model: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, model)


def _snapshot(model: str, name: str) -> uuid.UUID:
    return uuid.uuid5(_project(model), name)


def _to_workspace(folder: str, model: str, name: str, snapshot: Snapshot) -> None:
    from evidently.sdk.models import ProjectModel
    from evidently.ui.workspace import Workspace

    workspace = Workspace.create(folder)
    project = _project(model)
    if workspace.get_project(project) is None:
        workspace.add_project(ProjectModel(id=project, name=model))
    # `add_run` would draw a new id: a window that is judged again after a crash would be there twice.
    workspace.state.write_snapshot(project, _snapshot(model, name), snapshot.to_snapshot_model())
