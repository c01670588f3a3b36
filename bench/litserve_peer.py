"""LitServe over the same model, in a file of its own: its workers import the class by name.

It reads types from signatures, so that none may be a string.
"""

import sys
from pathlib import Path
from typing import Any

import litserve

from bench.serving import answering


class Api(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        super().__init__(max_batch_size=32, batch_timeout=0.002)
        self.folder = folder

    def setup(self, _: str) -> None:
        self.answer = answering(self.folder)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - its own type, which a name would hide
        return str(request["inputs"])

    def predict(self, texts: Any) -> Any:
        return self.answer(list(texts))

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Api(Path(sys.argv[2])), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
