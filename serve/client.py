"""A small HTTP client of our own API, for the command line and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import httpx

from cluster.errors import ClusterError, UserError


class Client:
    """One model at one server. Raises ClusterError when nothing answers, UserError when the request is refused."""

    def __init__(self, url: str, model: str, timeout: float = 30.0) -> None:
        self.url, self.model = url.rstrip("/"), model
        self._http = httpx.Client(base_url=self.url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def predict(self, inputs: Sequence[str]) -> dict[str, Any]:
        """`{"model", "version", "predictions": [{"prediction_id", "label", "confidence", "scores"}]}`."""
        return self._post(f"/v1/models/{self.model}/predict", {"inputs": list(inputs)})

    def feedback(self, labels: dict[str, str]) -> dict[str, Any]:
        """True labels by prediction id."""
        rows = [{"prediction_id": key, "label": label} for key, label in labels.items()]
        return self._post("/v1/feedback", {"feedback": rows})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._http.post(path, json=body)
        except httpx.TransportError as error:
            raise ClusterError(f"no server answers: {error}", where=self.url, mend="`rehone serve SPEC`") from None
        if 400 <= answer.status_code < 500:  # noqa: PLR2004 - HTTP's client errors
            raise UserError(f"{answer.status_code}: {answer.json().get('detail', answer.text)}", where=self.url + path)
        if answer.is_error:
            raise ClusterError(f"{answer.status_code}: {answer.text[:200]}", where=self.url + path)
        tree: dict[str, Any] = answer.json()
        return tree
