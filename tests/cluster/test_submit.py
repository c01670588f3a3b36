from __future__ import annotations

import pytest

from cluster.errors import ClusterError, UserError
from cluster.session import free_port, require
from cluster.submit import Jobs, run_and_follow


def test_a_cluster_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(ClusterError, match="no Ray job API answers at") as caught:
        Jobs(f"http://127.0.0.1:{free_port()}").list()
    assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_one_id_is_one_job_and_its_end_is_seen(ray_session: str) -> None:
    jobs = Jobs(ray_session)
    for _ in range(2):
        assert jobs.submit(["schema"], "only-once", {}, {"kind": "test"}) == "only-once"
    ended = jobs.wait("only-once")
    assert (ended.status, ended.metadata) == ("SUCCEEDED", {"kind": "test"})
    assert [job.submission_id for job in jobs.list()].count("only-once") == 1
    assert '"title": "Spec"' in jobs.logs("only-once")


@pytest.mark.ray
def test_what_the_job_api_refuses_is_said_in_one_line(ray_session: str) -> None:
    jobs = Jobs(ray_session)
    for ask in (jobs.logs, jobs.stop, jobs.wait):
        with pytest.raises(ClusterError, match="no-such-job") as caught:
            ask("no-such-job")
        assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_a_verb_that_fails_there_fails_here(ray_session: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClusterError, match="ended FAILED"):
        run_and_follow(ray_session, ["check", "nowhere.yaml"])
    assert "nowhere.yaml: no such file" in capsys.readouterr().out


@pytest.mark.ray
def test_what_the_cluster_does_not_have_is_said_at_once(ray_session: str) -> None:
    require(8, 0)
    with pytest.raises(UserError, match="1 GPUs are wanted, the cluster has 0"):
        require(1, 1)
