from __future__ import annotations

from cluster import show
from cluster.nodes.local import Local
from cluster.submission.submit import Job


def test_a_job_is_a_line() -> None:
    job = Job(
        "rehone-train-1", "FAILED", "x", {"kind": "train", "model": "m", "user": "me"}, started=0, driver_exit_code=3
    )
    (line,) = show.jobs([job]).splitlines()
    assert line.split() == ["rehone-train-1", "FAILED", "1970-01-01", "00:00:00Z", "train", "m", "me"]
    assert show.job(job) == "job rehone-train-1 FAILED, exit code 3"
    assert show.jobs([]) == "the cluster knows no job"


def test_a_cluster_without_a_token_says_so() -> None:
    assert "WITHOUT a token" in show.local(Local(1, "http://x", "x", "/tmp/x", token=False))
    assert "export RAY_API_SERVER_ADDRESS=http://x " in show.local(Local(1, "http://x", "x", "/tmp/x", token=True))
