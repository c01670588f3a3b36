"""Two local clusters on one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.submission.submit import Jobs

_SECOND = """
import sys
from cluster.session import connect
from cluster.settings import Settings
with connect(Settings(storage=sys.argv[1]), dashboard=True) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def _joined(address: str, name: str) -> str:
    """The address of the cluster that a job joins there."""
    jobs = Jobs(address)
    jobs.submit_command("printenv RAY_ADDRESS", name, {}, {})
    assert jobs.wait(name).status == "SUCCEEDED"
    # What Ray itself says of the job may come before it or after it.
    (said,) = re.findall(r"^[\d.]+:\d+$", jobs.logs(name), re.MULTILINE)
    return str(said)


@pytest.mark.ray
def test_a_job_joins_the_cluster_that_runs_it_whatever_else_runs_or_has_died_here(
    ray_session: str, tmp_path: Path
) -> None:
    import ray

    with subprocess.Popen(
        [sys.executable, "-c", _SECOND, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as second:
        assert second.stdout is not None
        address = second.stdout.readline().strip()
        here, there = _joined(ray_session, "here"), _joined(address, "there")
        assert here == ray.get_runtime_context().gcs_address
        assert there != here
        second.communicate()
