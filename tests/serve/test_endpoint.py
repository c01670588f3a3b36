from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import NotFoundError
from cluster.store.storage import Storage
from jobs.spec import Spec
from serve import endpoint
from serve.endpoint import Endpoint
from serve.many import kin


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


def test_a_model_is_found_at_its_own_server_or_at_one_that_answers_for_its_kin(storage: Storage, spec: Spec) -> None:
    mine = kin.of(spec)
    with pytest.raises(NotFoundError, match="'billing' is not served from this storage root"):
        endpoint.find(storage, "billing", mine)
    endpoint.record(storage, Endpoint("alone", "http://a", None))
    endpoint.record(storage, Endpoint("others", "http://o", None, kin.of(spec.with_values({"base_model": "other"}))))
    with pytest.raises(NotFoundError):
        endpoint.find(storage, "billing", mine)
    endpoint.record(storage, Endpoint("tiny", "http://t", "http://jobs", mine))
    assert endpoint.find(storage, "billing", mine) == Endpoint("tiny", "http://t", "http://jobs", mine)
    with pytest.raises(NotFoundError):
        endpoint.find(storage, "billing")
    endpoint.record(storage, Endpoint("billing", "http://b", None))
    assert endpoint.find(storage, "billing", mine).url == "http://b"
    endpoint.forget(storage, "billing")
    endpoint.forget(storage, "tiny")
    with pytest.raises(NotFoundError):
        endpoint.find(storage, "billing", mine)


@pytest.mark.parametrize("method", ["full", "ia3"])
def test_what_shares_no_base_has_no_kin(storage: Storage, spec: Spec, method: str) -> None:
    foreign = spec.with_values({"method.name": method})
    assert kin.of(foreign) == ""
    assert kin.of_tags({"method": method, "task": spec.task, "base_model": spec.base_model}) == ""
    assert kin.of_tags({"dataset": "of a version from before there were such tags"}) == ""
    endpoint.record(storage, Endpoint("tiny", "http://t", None))
    with pytest.raises(NotFoundError):
        endpoint.find(storage, "other", kin.of(foreign))


def test_a_versions_tags_say_what_its_spec_does(spec: Spec) -> None:
    tags = {"method": spec.method.name, "task": spec.task, "base_model": spec.base_model}
    assert kin.of_tags(tags) == kin.of(spec) == f"text-classification on {spec.base_model}"
