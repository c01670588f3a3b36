"""Whether a cluster could grow to what is wanted: its autoscaler is asked, who alone knows its groups and their bounds.

Ray's autoscaler v2 (KubeRay's) says what it can never make room for. Clusters without one, or with the v1, say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


def could_grow(bundles: Sequence[Mapping[str, float]], seconds: float = 30.0) -> bool:
    """Whether the connected cluster's autoscaler can place each bundle of resources, on nodes that it has yet to start.

    False without an autoscaler, and when it has not answered after `seconds`. A cluster may begin to grow meanwhile;
    what it adds and nobody uses goes as any idle node does.
    """
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    if not is_autoscaler_v2(fetch_from_server=True):
        return False
    with _wanted(bundles):
        asked = _status().cluster_resource_state.cluster_resource_state_version
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            said = _status().autoscaling_state
            if said.last_seen_cluster_resource_state_version > asked:
                return not said.infeasible_cluster_resource_constraints
            time.sleep(0.5)
    return False


@contextmanager
def _wanted(bundles: Sequence[Mapping[str, float]]) -> Iterator[None]:
    """Ray holds one such request for the whole cluster; left there, it would keep the nodes for ever."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(bundle) for bundle in bundles])
    try:
        yield
    finally:
        request_resources(bundles=[])


def _status() -> Any:
    """Ray's `GetClusterStatusReply`: what the cluster has and wants, and what its autoscaler makes of that."""
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    return GetClusterStatusReply.FromString(internal_kv_get_gcs_client().get_cluster_status())
