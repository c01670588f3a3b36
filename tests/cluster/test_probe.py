from __future__ import annotations

import platform
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec

from cluster.nodes import probe


def test_a_machine_says_how_it_is(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    made = probe.here(str(tmp_path), "mark", "/tmp")
    assert made["versions"]["python"] == platform.python_version()
    assert made["storage"] == ""
    assert [disk["what"] for disk in made["disks"]] == ["Ray's folder", "storage root"]
    assert all(0 < disk["free"] < disk["total"] for disk in made["disks"])


def test_a_root_that_is_not_there_yet_has_the_disk_of_the_folder_above(tmp_path: Path) -> None:
    made = probe.here(str(tmp_path / "a" / "b"), "mark", "/tmp")
    assert made["storage"] == "there is another folder of that name, or none"
    assert made["disks"][1]["total"] > 0


def test_an_object_store_is_asked() -> None:
    bucket = uuid.uuid4().hex
    assert probe.reach(f"memory://{bucket}/prefix", "").startswith("FileNotFoundError")
    fsspec.filesystem("memory").pipe_file(f"/{bucket}/x", b"")
    assert probe.reach("memory://", "") == ""
    assert "bogus" in probe.reach("bogus://x", "")


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert probe._version("no-such-package-of-ours") is None


def test_it_runs_where_rehone_is_not_installed(tmp_path: Path) -> None:
    alone = tmp_path / "probe.py"
    alone.write_text(Path(probe.__file__).read_text())
    code = "import probe, sys; print(sorted(m for m in sys.modules if m.split('.')[0] in ('cluster', 'rehone')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": ""}
    )
    assert done.stdout.strip() == "[]"
