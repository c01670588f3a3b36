from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError, UserError
from cluster.session import free_port, require
from cluster.submission.submit import JOB, Jobs, Resources


def test_a_cluster_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(ClusterError, match="no Ray job API answers at") as caught:
        Jobs(f"http://127.0.0.1:{free_port()}").list()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto", ""])
def test_an_address_of_something_else_is_said_before_anything_is_asked(address: str) -> None:
    with pytest.raises(UserError, match=r"is no address of a job API .*http://head:8265"):
        Jobs(address)


def test_resources_are_read_as_people_write_them() -> None:
    assert Resources.parse("cpus=1, gpus=0.5,memory=2GiB") == Resources(1, 0.5, 2 * 2**30)
    assert Resources.parse("memory=500M").memory == 500_000_000
    assert Resources.parse("memory=1024").options() == {"entrypoint_memory": 1024}
    assert Resources.parse("").options() == {}


@pytest.mark.parametrize("text", ["cpu=1", "cpus", "cpus=many", "cpus=1GiB", "memory=2XB", "gpus=-1", "cpus=nan"])
def test_what_is_no_resource_is_said(text: str) -> None:
    with pytest.raises(UserError, match=r"--resources: .* is no resource"):
        Resources.parse(text)


@given(st.text())
def test_any_other_text_is_the_users_mistake_and_no_fault_of_ours(text: str) -> None:
    try:
        Resources.parse(text)
    except UserError as error:
        assert error.exit_code == 2


@pytest.mark.ray
def test_one_id_is_one_job_and_its_end_is_seen(ray_session: str) -> None:
    jobs = Jobs(ray_session)
    for _ in range(2):
        assert jobs.submit(["schema"], "only-once", {}, {"kind": "test"}) == "only-once"
    ended = jobs.wait("only-once")
    assert (ended.status, ended.metadata, ended.exit_code) == ("SUCCEEDED", {"kind": "test"}, 0)
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
def test_a_password_in_a_variable_is_not_handed_to_the_job_api(ray_session: str) -> None:
    jobs = Jobs(ray_session)
    sent = {"MLFLOW_TRACKING_URI": "postgresql://me:hush@db/x", "REHONE_STORAGE": "s3://bucket"}
    jobs.submit_command(f'echo "[$MLFLOW_TRACKING_URI] [$REHONE_STORAGE] [${JOB}]"', "hushed", sent, {})
    jobs.wait("hushed")
    assert "[] [s3://bucket] [hushed]" in jobs.logs("hushed")


@pytest.mark.ray
def test_a_job_that_is_stopped_has_failed(ray_session: str) -> None:
    jobs = Jobs(ray_session)
    jobs.submit_command("sleep 600", "endless", {}, {}, resources=Resources(cpus=1))
    jobs.stop("endless")
    ended = jobs.wait("endless")
    assert (ended.status, ended.exit_code) == ("STOPPED", 1)


@pytest.mark.ray
def test_what_the_cluster_does_not_have_is_said_at_once(ray_session: str) -> None:
    require([{"CPU": 1}] * 8)
    with pytest.raises(UserError, match="1 GPUs are wanted, the cluster has 0"):
        require([{"CPU": 1, "GPU": 1}])
