"""Whatever the OpenAPI document allows, and what it does not, gets an answer that the document describes; never a 5xx."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from serve.http.guard import Bounds, Guard
from serve.http.telemetry import Telemetry
from serve.log.predictions import new_id

from .test_app import Server

READS = [("GET", "/v1/models"), ("GET", "/healthz")]
ASKS = [
    ("POST", "/v1/models/{model}/predict"),
    ("POST", "/v1/models/{model}/explain"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
]


class Meter:
    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        assert status < 500

    def ongoing(self, requests: int) -> None:
        assert requests >= 0


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> BaseSchema:
    """Of the application in the layers that a replica puts around it."""
    server = Server(tmp_path_factory.mktemp("spool"), pii="mask")
    server.api.add_middleware(Guard, bounds=Bounds(ongoing=8, rate=0, body=2**20, seconds=30))
    server.api.add_middleware(Telemetry, meter=Meter())
    return schemathesis.openapi.from_asgi("/openapi.json", server.api)


def known(case: schemathesis.Case) -> schemathesis.Case:
    """The case with names that exist here, which no document can say: model, prediction ids, labels."""
    if case.path_parameters:
        case.path_parameters["model"] = "m"
    if isinstance(case.body, dict):
        if "model" in case.body:
            case.body["model"] = "m"
        labels: list[Any] = case.body["feedback"] if isinstance(case.body.get("feedback"), list) else [case.body]
        for label in labels:
            if isinstance(label, dict) and "prediction_id" in label:
                label["prediction_id"] = new_id("m", 7)
            if isinstance(label, dict) and isinstance(label.get("label"), str):
                label["label"] = "positive"
    return case


def test_every_operation_is_tried(document: BaseSchema) -> None:
    found = {(op.method.upper(), op.path) for op in (result.ok() for result in document.get_all_operations())}
    assert found == set(READS + ASKS)


def unchanged(case: schemathesis.Case) -> schemathesis.Case:
    return case


WAYS = {
    "known names": (GenerationMode.POSITIVE, known, READS + ASKS),
    "any names": (GenerationMode.POSITIVE, unchanged, ASKS),
    "not as described": (GenerationMode.NEGATIVE, unchanged, ASKS),
}


@pytest.mark.parametrize(
    ("way", "method", "path"), [(way, *operation) for way, (_, _, tried) in WAYS.items() for operation in tried]
)
def test_an_answer_is_one_that_the_document_describes(document: BaseSchema, way: str, method: str, path: str) -> None:
    mode, make, _ = WAYS[way]
    statuses = set[int]()

    @settings(max_examples=25, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=document[path][method].as_strategy(generation_mode=mode).map(make))
    def answers(case: schemathesis.Case) -> None:
        # Not that whatever the document allows is taken: it does not know how many inputs this server takes at once.
        response, excluded = case.call(), [positive_data_acceptance]
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # which refuses what is wrong, too
            excluded.append(negative_data_rejection)
        case.validate_response(response, excluded_checks=excluded)
        statuses.add(response.status_code)

    answers()
    assert all(status < 500 for status in statuses)
    if make is known:
        assert 200 in statuses
