"""RayJobs through the Kubernetes API server: create one, follow it to its end, and refusals as one line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError, UserError

from .rayjob import GROUP, MODEL, VERSION

if TYPE_CHECKING:
    from kubernetes.client import CustomObjectsApi

PLURAL = "rayjobs"
_WATCH_SECONDS = 300
_KEPT = timedelta(days=7)
_ENDED = {"Complete", "Failed", "ValidationFailed"}
"""The operator's words for a RayJob that it does nothing for any more."""
_JOB_ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}


def connect(context: str | None = None) -> CustomObjectsApi:
    """The API of the pod's own cluster inside one, else of the kubeconfig. Raises UserError when there is none."""
    from kubernetes import client, config

    try:
        if context is None:
            config.load_config()
        else:
            config.load_kube_config(context=context)
    except config.ConfigException as error:
        raise UserError(
            f"no Kubernetes cluster is configured: {error}", mend="set KUBECONFIG, or name a --context that it has"
        ) from None
    return client.CustomObjectsApi()


def create(api: CustomObjectsApi, manifest: Mapping[str, Any]) -> bool:
    """Create the RayJob; one of that name is left as it is, and False. Raises UserError, ClusterError."""
    from kubernetes.client import ApiException

    place = manifest["metadata"]["namespace"]
    with _answering(place):
        try:
            api.create_namespaced_custom_object(GROUP, VERSION, place, PLURAL, dict(manifest))
        except ApiException as error:
            if error.status == 409:  # noqa: PLR2004 - HTTP's Conflict
                return False
            raise
    return True


def wait(api: CustomObjectsApi, namespace: str, name: str, each: Callable[[str], None], pause: float = 1.0) -> str:
    """Until the RayJob has ended: the job's status, SUCCEEDED when it did. `each` gets each new state.

    `pause` in seconds is between two streams of changes. Raises ClusterError when the job is gone.
    """
    seen = ""
    for found in _states(api, namespace, name, pause):
        status = found.get("status", {})
        deployment = status.get("jobDeploymentStatus") or "Waiting for the operator"
        if deployment != seen:
            seen = deployment
            each(f"{name}: {deployment}")
        if deployment in _ENDED:
            # A job that never ran has no status of its own, only a reason.
            return str(status.get("jobStatus") or status.get("reason") or deployment)
    raise AssertionError("states have no end")


def status(api: CustomObjectsApi, namespace: str, name: str) -> str | None:
    """Ray's word for the job: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED; None where there is no such RayJob.

    A job's own end does not count before the operator's, who may have another try left. Raises ClusterError.
    """
    from kubernetes.client import ApiException

    with _answering(namespace):
        try:
            found = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name).get("status", {})
        except ApiException as error:
            if error.status == 404 and _message(error).endswith("not found"):  # noqa: PLR2004 - not: no such kind
                return None
            raise
    job = found.get("jobStatus")
    if found.get("jobDeploymentStatus") in _ENDED:
        return job if job in _JOB_ENDED else "FAILED"  # a cluster that never came, or a deadline
    return "RUNNING" if job else "PENDING"


def clear(api: CustomObjectsApi, namespace: str, model: str, now: datetime | None = None) -> list[str]:
    """Delete a model's RayJobs that ended over a week ago: the operator leaves them, and a quota counts them.

    Gives their names. Raises ClusterError.
    """
    from kubernetes.client import ApiException

    latest = (now or datetime.now(UTC)) - _KEPT
    with _answering(namespace):
        label = f"{MODEL}={model}"
        found = api.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, label_selector=label)["items"]
        gone = [one["metadata"]["name"] for one in found if _ended_before(one.get("status", {}), latest)]
        for name in gone:
            try:
                api.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
            except ApiException as error:
                if error.status != 404:  # noqa: PLR2004 - somebody was quicker
                    raise
    return gone


def _ended_before(status: Mapping[str, Any], latest: datetime) -> bool:
    ended = status.get("endTime")
    return status.get("jobDeploymentStatus") in _ENDED and ended is not None and datetime.fromisoformat(ended) < latest


def _states(api: CustomObjectsApi, namespace: str, name: str, pause: float) -> Iterator[dict[str, Any]]:
    """The RayJob as it is, then each time that it changes. Servers end a stream now and then: it begins anew."""
    while True:
        with _answering(namespace):
            found = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        yield found
        with _answering(namespace):
            yield from _changes(api, namespace, name, found["metadata"]["resourceVersion"])
        time.sleep(pause)


def _changes(api: CustomObjectsApi, namespace: str, name: str, since: str) -> Iterator[dict[str, Any]]:
    """Until the stream ends, breaks, cannot go back as far as `since`, or the object is deleted."""
    from kubernetes.client import ApiException
    from kubernetes.watch import Watch
    from urllib3.exceptions import ProtocolError, ReadTimeoutError

    stream = Watch().stream(
        api.list_namespaced_custom_object,
        *(GROUP, VERSION, namespace, PLURAL),
        field_selector=f"metadata.name={name}",
        resource_version=since,
        timeout_seconds=_WATCH_SECONDS,
        _request_timeout=(10, _WATCH_SECONDS + 30),  # a connection that died without a word
    )
    try:
        for event in stream:
            if event["type"] == "DELETED":
                return
            yield event["object"]
    except (ProtocolError, ReadTimeoutError):
        return
    except ApiException as error:
        if error.status != 410:  # noqa: PLR2004 - HTTP's Gone
            raise


_MENDS = {
    401: "log in again: the credentials of this context are not accepted",
    403: "ask for the role rehone-controller of that namespace (k8s/base/control/role.yaml)",
    404: "install the KubeRay operator and the namespace first (k8s/README.md)",
}
_FULL = (
    "wait for what runs there, delete what has ended, or raise the ResourceQuota (k8s/base/training/resourcequota.yaml)"
)


@contextmanager
def _answering(namespace: str) -> Iterator[None]:
    """An API server's refusal as one line. Raises ClusterError, UserError for what is wrong with the object."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        said = _message(error)
        if error.status in {400, 422}:
            raise UserError(f"the API server refuses the RayJob: {said}", where=namespace) from None
        mend = _FULL if "exceeded quota" in said else _MENDS.get(error.status, "try again")
        raise ClusterError(said, where=namespace, mend=mend) from None
    except HTTPError as error:
        raise ClusterError(
            f"no Kubernetes API server answers: {str(error).splitlines()[0]}", mend="check the context of KUBECONFIG"
        ) from None


def _message(error: Any) -> str:
    """The server's own words, where its answer is the API's and not some proxy's."""
    try:
        said = json.loads(error.body)["message"]
    except (ValueError, TypeError, KeyError):
        said = error.reason
    return " ".join(str(said).split())[:500]
