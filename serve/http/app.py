"""The HTTP application: FastAPI over the `Service`s of some models. Routes, bodies, status codes; nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from cluster.errors import NotFoundError, RehoneError, UserError
from jobs.explain.explanation import Explanation
from jobs.explain.pixels import ImageExplanation
from jobs.explain.words import TextExplanation
from serve.log.predictions import Prediction, parse_id
from serve.many.models import Listed, Models
from serve.service import NotReadyError, Service

from . import openai_routes, telemetry
from .guard import may_ask

_NOTED = 10  # prediction ids of one request that its line in the access log has


Input = Annotated[str, StringConstraints(min_length=1)]
Inputs = Annotated[list[Input], BeforeValidator(openai_routes.listed, json_schema_input_type=Input | list[Input])]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(Body):
    inputs: Inputs = Field(min_length=1, examples=[["what a day", "never again"]])


class Predicted(Body):
    prediction_id: str
    label: str
    confidence: float
    scores: dict[str, float]


class PredictResponse(Body):
    model: str
    version: int
    predictions: list[Predicted]


class ExplainRequest(Body):
    inputs: Inputs = Field(min_length=1, examples=[["what a day"]])
    label: str | None = Field(None, description="The label to speak of; the predicted one when not given.")


class Word(Body):
    word: str
    start: int = Field(description="First character in the text.")
    end: int = Field(description="One past its last character.")
    attribution: float = Field(description="What the word added to the label's score; negative speaks against it.")


class Explained(Body):
    label: str
    score: float = Field(description="The label's probability.")
    empty_score: float = Field(description="Its probability for an input with nothing in it.")
    gap: float = Field(description="By how much the attributions miss score - empty_score when added up.")
    text: str | None = Field(None, description="What the model read of a text: with what data.pii masks masked.")
    words: list[Word] | None = Field(None, description="Of a text, in order.")
    grid: list[list[float]] | None = Field(
        None, description="Of an image: what the pixels of each cell added, the top row first, from left to right."
    )


class ExplainResponse(Body):
    model: str
    version: int
    explanations: list[Explained]


class Label(Body):
    prediction_id: str
    label: str = Field(description="The true label.")


class Labels(Body):
    feedback: list[Label] = Field(min_length=1, max_length=10_000)


class Accepted(Body):
    accepted: int


class Served(Body):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds.")
    owned_by: Literal["rehone"] = "rehone"
    version: int
    alias: list[str]
    labels: list[str]
    engine: str = Field(description="What answers: torch, onnx, onnx-int8, openvino or vllm.")
    loaded: bool = Field(description="False for one that is loaded when it is asked for; its labels are known then.")
    failed: dict[int, str] = Field(description="Versions that were promoted and could not be loaded, and why.")


class Listing(Body):
    object: Literal["list"] = "list"
    data: list[Served]


class Health(Body):
    status: str


class Problem(BaseModel):
    detail: str


class ForbiddenError(RehoneError):
    """Whoever asks may not ask this model."""


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (UserError, 422),
    (NotReadyError, 503),
    (RehoneError, 503),
    (OSError, 503),
)
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Problem}}
_GUARDED: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (401, 403, 413, 429, 504)}
"""What `guard` answers itself."""
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    **{status: {"model": Problem} for status in (400, 404, 422, 503)},
    **_GUARDED,
}


@dataclass(frozen=True)
class Limits:
    """Inputs of one request, and characters of one input."""

    predict: int
    explain: int
    characters: int


def build(models: Models, limits: Limits) -> FastAPI:
    """The application over the models of a replica."""
    api = FastAPI(
        title="rehone", summary="Predictions of fine-tuned models, and their true labels when they are known."
    )
    for kind, status in _STATUS:
        api.add_exception_handler(kind, _handler(status))
    api.add_exception_handler(RequestValidationError, _refuse)
    api.add_exception_handler(HTTPException, _plain)

    reach = _way(models)

    @api.post("/v1/models/{model}/predict", responses=_PROBLEMS)
    async def predict(
        model: str, body: PredictRequest, request: Request, x_rehone_key: openai_routes.Key = None
    ) -> PredictResponse:
        """Label one input or many: texts, or images as `data:` URIs.

        Every answer is in the prediction log before it is sent.
        """
        _bound(body.inputs, limits.predict, limits.characters)
        service = await reach(request, model)
        made = await service.predict(model, body.inputs, key=x_rehone_key)
        ids = [prediction.prediction_id for prediction in made[:_NOTED]]
        telemetry.note(request.scope, version=made[0].version, prediction_ids=ids)
        return PredictResponse(model=model, version=made[0].version, predictions=[_predicted(p) for p in made])

    @api.post("/v1/models/{model}/explain", responses=_PROBLEMS, response_model_exclude_none=True)
    async def explain(model: str, body: ExplainRequest, request: Request) -> ExplainResponse:
        """Which words of a text, or places of an image, speak for a label and by how much (integrated gradients).

        Costs tens of predictions an input. Writes nothing to the prediction log.
        """
        _bound(body.inputs, limits.explain, limits.characters)
        service = await reach(request, model)
        made = await service.explain(model, body.inputs, body.label)
        return ExplainResponse(
            model=model, version=made.version, explanations=[_explained(e) for e in made.explanations]
        )

    @api.post("/v1/feedback", responses=_PROBLEMS)
    async def feedback(body: Labels | Label, request: Request) -> Accepted:
        """The true label of one prediction or of many, whenever it is known. All are taken, or none."""
        labels = body.feedback if isinstance(body, Labels) else [body]
        names = dict.fromkeys(parse_id(one.prediction_id)[0] for one in labels)
        services = {model: await reach(request, model) for model in names}
        rows = [services[parse_id(one.prediction_id)[0]].labelled(one.prediction_id, one.label) for one in labels]
        next(iter(services.values())).keep(rows)
        return Accepted(accepted=len(rows))

    @api.get("/v1/models", responses=_NOT_READY)
    async def listed(request: Request) -> Listing:
        """What whoever asks may ask, as OpenAI's API lists models."""
        found = await models.listed()
        return Listing(data=[_served(one) for one in found if may_ask(request.scope, one.version.model)])

    @api.get("/healthz", responses=_NOT_READY)
    async def healthz() -> Health:
        """200 when a version is loaded, 503 until then."""
        models.ready()
        return Health(status="ok")

    def bound(inputs: Sequence[str]) -> None:
        _bound(inputs, limits.predict, limits.characters)

    api.include_router(openai_routes.router(reach, bound, _GUARDED))
    return api


def _way(models: Models) -> openai_routes.Reach:
    """The only one to a service: nobody gets past the scope of a key, nor learns which names there are beyond it."""

    async def reach(request: Request, model: str) -> Service:
        if not may_ask(request.scope, model):
            raise ForbiddenError(f"this caller may not ask {model[:80]}")
        service = await models.of(model)
        telemetry.note(request.scope, model=service.model)
        return service

    return reach


def _served(one: Listed) -> Served:
    version, engine = one.version, one.engine
    return Served(
        id=version.model,
        created=int(version.created),
        version=version.version,
        alias=list(version.aliases),
        labels=[] if engine is None else list(engine.labels),
        engine="torch" if engine is None else engine.predictor.engine,
        loaded=engine is not None,
        failed=dict(one.failed),
    )


def _predicted(made: Prediction) -> Predicted:
    return Predicted(prediction_id=made.prediction_id, label=made.label, confidence=made.confidence, scores=made.scores)


def _explained(made: Explanation) -> Explained:
    said: dict[str, Any] = {name: getattr(made, name) for name in ("label", "score", "empty_score", "gap")}
    if isinstance(made, TextExplanation):
        said |= {"text": made.input, "words": [Word.model_validate(asdict(word)) for word in made.words]}
    if isinstance(made, ImageExplanation):
        said["grid"] = [list(row) for row in made.grid]
    return Explained(**said)


def _bound(inputs: Sequence[str], most: int, characters: int) -> None:
    if len(inputs) > most:
        raise UserError(f"{len(inputs)} inputs in one request", mend=f"send at most {most}")
    longest = max(map(len, inputs))
    if longest > characters:
        raise UserError(f"an input of {longest:,} characters", mend=f"send at most {characters:,}")


def _refuse(request: Request, error: Exception) -> JSONResponse:
    """One line that names the fields; not the input, which JSON cannot always repeat (half a surrogate pair)."""
    assert isinstance(error, RequestValidationError)
    if request.url.path in openai_routes.PATHS:
        return JSONResponse(openai_routes.refusal(error.errors()), 400)
    said = (f"{'.'.join(str(part) for part in e['loc'][1:]) or 'body'}: {e['msg']}" for e in error.errors())
    return _problem(request, 422, "; ".join(said))


def _plain(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: a body that is no text, a path or method that is none of ours."""
    assert isinstance(error, HTTPException)
    return _problem(request, error.status_code, str(error.detail), dict(error.headers or {}))


def _problem(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    if request.url.path not in openai_routes.PATHS:
        return JSONResponse({"detail": detail}, status, headers)
    status = 400 if status == 422 else status  # noqa: PLR2004 - what OpenAI's clients know
    return JSONResponse(openai_routes.problem(status, detail), status, headers)


def _handler(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def handle(request: Request, error: Exception) -> JSONResponse:
        # An OSError is the spool's: the disk is full or gone, and an answer that is not written down is not given.
        detail = str(error) if isinstance(error, RehoneError) else f"the prediction log cannot be written: {error}"
        return _problem(request, status, detail, {"Retry-After": "1"} if status == 503 else None)  # noqa: PLR2004

    return handle
