"""The spec: one frozen pydantic model that says everything a project does.

Reading it from a file, overrides and error lines are in `specfile.py`. Cross-field rules are here, beside the
fields; rules that need the data are in `data.py`, rules that need the base model in `model.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from . import tasks
from .targets import preference
from .tasks import TASKS
from .tasks.task import Bounds

Share = Annotated[float, Field(gt=0, lt=1)]

OWN_COLUMNS = frozenset(
    "label group time row origin split reason input true confidence embedding slice".split()  # noqa: SIM905
)
"""Names of columns that rehone itself gives to rows and answers; a slice cannot have one of them."""


class Part(BaseModel):
    """Every part of the spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitBy(StrEnum):
    stratified = "stratified"
    group = "group"
    time = "time"
    rolling = "rolling"
    column = "column"


class SplitSpec(Part):
    by: SplitBy = Field(
        SplitBy.stratified,
        description="How rows are kept apart: stratified by label, by group, by time, rolling over time, or as a "
        "column says. However it is, rows of one data.group stay on one side.",
    )
    train: Share = Field(0.7, description="Share of rows to train on.")
    validation: Share = Field(0.15, description="Share that early stopping and the sweep look at.")
    test: Share = Field(0.15, description="Share that only the Scorecard looks at.")
    column: str | None = Field(
        None, description="Column that holds train, validation or test (split.by: column); the shares do not count."
    )
    folds: PositiveInt = Field(
        3,
        description="split.by: rolling cuts time into folds + 2 equal blocks; fold k trains on the first k, validates "
        "on the next and tests on the one after. The shares do not count.",
    )
    fold: PositiveInt | None = Field(None, description="Which fold (split.by: rolling); the last when not given.")

    @property
    def chosen_fold(self) -> int:
        return self.fold or self.folds

    @model_validator(mode="after")
    def _fold_is_there(self) -> SplitSpec:
        if self.chosen_fold > self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds} folds")
        return self

    @model_validator(mode="after")
    def _column_and_by_agree(self) -> SplitSpec:
        if (self.by is SplitBy.column) != (self.column is not None):
            raise ValueError("by: column and a column go together, the one needs the other")
        return self

    @model_validator(mode="after")
    def _adds_up(self) -> SplitSpec:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1):
            raise ValueError(f"train + validation + test must be 1, not {total:g}")
        return self


class DataSpec(Part):
    source: str = Field(
        description="CSV, JSONL or Parquet file, a folder of them, or a hub name. Relative to the spec file."
    )
    input: str = Field("text", description="Column with what the model reads.")
    label: str = Field("label", description="Column with the label.")
    labels: tuple[str, ...] | None = Field(
        None, description="The labels that may occur; found in the data when not given."
    )
    rejected: str | None = Field(
        None,
        description="Column with the worse answer, `label` having the better one (preference-tuning); without it "
        "`label` holds both.",
    )
    group: str | None = Field(None, description="Column that says which rows belong together.")
    time: str | None = Field(
        None, description="Column with a date or a number that orders rows (split.by: time or rolling)."
    )
    hub_split: str = Field("train", description="Which split to take when `source` is a hub name.")
    near_duplicates: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="Jaccard similarity of word 3-grams from which two texts count as one; null keeps them "
        "all, on whichever side they fall.",
    )
    slices: tuple[str, ...] = Field(
        (), description="Further columns that stay with each row, for a Scorecard by their values."
    )
    corrections: str | None = Field(
        None, description="CSV with row, input, label: labels put right by hand; an empty label drops the row."
    )
    pii: Literal["keep", "mask"] = Field(
        "keep",
        description="mask: emails, phone and card numbers become `<EMAIL>`, `<PHONE>`, `<CARD>` before anything is "
        "kept.",
    )
    phone_region: str = Field(
        "US", pattern="^[A-Z]{2}$", description="Country whose phone numbers are known without +CODE in front."
    )
    balance: Literal["none", "class_weights", "oversample"] = Field(
        "none", description="Remedy for rare labels: weigh the loss, or repeat training rows until labels are even."
    )
    packing: bool = Field(
        False,
        description="Put short rows one after another, up to max_length + max_answer tokens, so that less is filled up "
        "(text-generation); each is read by itself and losses stay the same.",
    )
    split: SplitSpec = SplitSpec()  # type: ignore[call-arg]

    @field_validator("slices")
    @classmethod
    def _slices_have_names_of_their_own(cls, slices: tuple[str, ...]) -> tuple[str, ...]:
        clash = sorted(OWN_COLUMNS & set(slices))
        if clash:
            raise ValueError(f"{', '.join(map(repr, clash))} is a name of rehone's own; rename the column")
        if len(set(slices)) != len(slices):
            raise ValueError("names a column twice")
        return slices

    @field_validator("phone_region")
    @classmethod
    def _region_has_phones(cls, region: str) -> str:
        from phonenumbers import SUPPORTED_REGIONS

        if region not in SUPPORTED_REGIONS:
            raise ValueError("is no country that phone numbers are known of, such as US or GB")
        return region

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and len(set(labels)) != max(2, len(labels)):
            raise ValueError("needs at least two labels, each named once")
        return labels

    @model_validator(mode="after")
    def _split_has_its_column(self) -> DataSpec:
        if self.split.by is SplitBy.group and self.group is None:
            raise ValueError("split.by: group needs data.group, the column to keep together")
        if self.split.by in {SplitBy.time, SplitBy.rolling} and self.time is None:
            raise ValueError(f"split.by: {self.split.by} needs data.time, the column to order by")
        return self


class AuditSpec(Part):
    language: str | None = Field(
        None, pattern="^[a-z]{2}$", description="ISO 639-1 code texts should be in; the commonest one when not given."
    )
    semantic_duplicates: float = Field(
        0.95, gt=0, le=1, description="Cosine similarity of embeddings from which two texts say the same."
    )
    doubtful: Share = Field(0.1, description="Share of the labels, the most doubtful ones, that go out to be checked.")
    folds: int = Field(5, ge=2, description="Folds of the cross-validation that labels are judged by.")
    neighbours: PositiveInt = Field(10, description="Nearest rows whose mean distance tells an outlier.")
    outliers: float = Field(
        5.0, gt=0, description="Robust standard deviations above the median distance that make an outlier."
    )
    ray_rows: PositiveInt = Field(20_000, description="Rows from which embeddings are computed through Ray Data.")


SHARING = frozenset({"lora", "rslora", "dora"})
"""Methods whose models can share a base model in memory."""


WRITTEN_ON = frozenset({"text-generation", "preference-tuning"})
"""Tasks whose answer is what a causal model writes after the input."""


class MethodSpec(Part):
    name: Literal["lora", "rslora", "dora", "qlora", "ia3", "prompt-tuning", "full"] = Field(
        "lora",
        description="Adapters: LoRA (Hu et al. 2021), rank-stabilised (Kalajdzievski 2023), DoRA (Liu et al. 2024), "
        "QLoRA (Dettmers et al. 2023: LoRA on weights held in 4 bits, on a GPU), IA3 (Liu et al. 2022, which has no "
        "rank, scale or dropout), prompt tuning (Lester et al. 2021, which has virtual_tokens only); or all weights.",
    )

    @field_validator("name", mode="before")
    @classmethod
    def _is_here(cls, name: Any) -> Any:
        if name == "prefix-tuning":
            raise ValueError(f"{name} is not supported; use prompt-tuning")
        return name

    rank: PositiveInt = Field(8, description="LoRA rank r.")
    alpha: PositiveInt = Field(16, description="LoRA scale: the update times alpha / rank (rslora: / sqrt(rank)).")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout in front of the adapters.")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="Modules that get an adapter."
    )
    virtual_tokens: PositiveInt = Field(20, description="Learned tokens in front of each input (prompt-tuning).")

    @property
    def whole_weights(self) -> bool:
        """Whether weights must be whole on each device: ZeRO stage 3 shards neither 4-bit weights nor prompts."""
        return self.name in {"qlora", "prompt-tuning"}


class TrainingSpec(Part):
    epochs: PositiveInt = Field(3, description="Passes over the training rows, at most.")
    learning_rate: PositiveFloat = Field(1e-3, description="Peak of the warm-up-then-linear-decay schedule.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled weight decay.")
    warmup_ratio: float = Field(0.06, ge=0, lt=1, description="Share of all steps over which the rate rises.")
    micro_batch_size: PositiveInt = Field(16, description="Rows per worker and step.")
    global_batch_size: PositiveInt = Field(32, description="Rows per optimizer step, over all workers.")
    max_length: PositiveInt = Field(128, description="Tokens per input; longer ones are cut.")
    max_answer: PositiveInt = Field(
        64, description="Tokens of an answer, where a task's answers are texts; longer ones are cut."
    )
    max_grad_norm: PositiveFloat = Field(1.0, description="Gradients are clipped to this norm.")
    beta: PositiveFloat = Field(
        0.1, description="How strongly preference-tuning holds to what the model would say without its adapter."
    )
    zero_stage: Literal["auto", 0, 1, 2, 3] = Field(
        "auto", description="DeepSpeed ZeRO stage; auto is the smallest whose model states fit a device's memory."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Numbers that the model computes in; of what is trained fp32 is kept. bf16 needs a device that has "
        "it, fp16 a GPU: its loss is scaled.",
    )
    offload: Literal["none", "optimizer", "parameters"] = Field(
        "none",
        description="What lies in the machine's memory rather than the GPU's: the optimizer's state (ZeRO 1 to 3), or "
        "the weights as well (ZeRO 3; Ren et al. 2021, Rajbhandari et al. 2021).",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute each layer again for its gradients rather than keep what it had: less memory, more "
        "time (Chen et al. 2016).",
    )
    evaluations_per_epoch: PositiveInt = Field(2, description="How often validation loss is measured.")
    patience: PositiveInt = Field(3, description="Evaluations without a better validation loss before stopping.")
    max_failures: int = Field(1, ge=0, description="Times a lost worker group is started again from its checkpoint.")
    seed: int = Field(0, description="Of splits, new weights, the order of rows and the points of a sweep.")


def bundle(cpus: float, gpus: float) -> dict[str, float]:
    """Resources of one process, as Ray names them."""
    return {name: float(amount) for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}


class ScalingSpec(Part):
    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        2,
        description="Ray Train workers; [fewest, most] for as many as the cluster has room for, from one checkpoint to "
        "the next.",
    )
    cpus_per_worker: PositiveInt = Field(1, description="Logical CPUs and torch threads of a worker or trial.")
    use_gpu: bool = Field(False, description="Workers and trials compute on GPUs.")
    gpus_per_worker: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Of a worker or trial with use_gpu. Less than 1 leaves room beside a single worker.",
    )
    resize_seconds: PositiveFloat = Field(
        60.0, description="How often training with [fewest, most] workers looks whether it could have others."
    )

    @field_validator("workers")
    @classmethod
    def _fewest_come_first(cls, workers: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(workers, tuple) and workers[0] > workers[1]:
            raise ValueError(f"[fewest, most] is turned round: [{workers[1]}, {workers[0]}]")
        return workers

    @model_validator(mode="after")
    def _a_shared_gpu_is_for_one(self) -> ScalingSpec:
        if self.gpus_per_worker < 1 and not self.use_gpu:
            raise ValueError(f"gpus_per_worker: {self.gpus_per_worker:g} goes with use_gpu: true")
        if self.gpus_per_worker < 1 and self.most_workers > 1:  # NCCL refuses two of a group on one
            raise ValueError(f"gpus_per_worker: {self.gpus_per_worker:g} goes with workers: 1")
        return self

    @property
    def gpus(self) -> float:
        """Of a worker or trial."""
        return self.gpus_per_worker if self.use_gpu else 0.0

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray reserves for a worker or trial."""
        return bundle(self.cpus_per_worker, self.gpus)

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Without which a training does not begin."""
        return [self.bundle] * self.fewest_workers

    @property
    def fewest_workers(self) -> int:
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers

    @property
    def most_workers(self) -> int:
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers

    @property
    def said_workers(self) -> str:
        """As one reads it: `2`, or `1 to 8`."""
        return " to ".join(map(str, self.workers)) if isinstance(self.workers, tuple) else str(self.workers)


class Range(Part):
    """Where the sweep draws one key from; exactly one of the three."""

    uniform: tuple[float, float] | None = None
    loguniform: tuple[PositiveFloat, PositiveFloat] | None = None
    choice: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        if sum(kind is not None for kind in (self.uniform, self.loguniform, self.choice)) != 1:
            raise ValueError("needs exactly one of uniform: [low, high], loguniform: [low, high], choice: [...]")
        for pair in (self.uniform, self.loguniform):
            if pair is not None and pair[0] >= pair[1]:
                raise ValueError(f"low {pair[0]:g} is not below high {pair[1]:g}")
        if self.choice == ():
            raise ValueError("choice is empty")
        return self


class SweepSpec(Part):
    algorithm: Literal["random", "grid", "tpe"] = Field(
        "random",
        description="How points come: drawn, every combination of the choices, or by Optuna's TPE (Bergstra et al. "
        "2011), which looks where points were good. None comes twice.",
    )
    scheduler: Literal["halving", "asha", "none"] = Field(
        "halving",
        description="halving (Jamieson & Talwalkar 2016) trains all points to a rung, and the best go on from where "
        "they were; asha (Li et al. 2020) does not wait for all, and stops a trial that lags behind those before it; "
        "none lets all live to their end.",
    )
    trials: PositiveInt = Field(6, description="Points drawn from `search`; a grid takes all it has.")
    epochs: PositiveInt = Field(2, description="Epochs of a trial that comes to its end.")
    grace_epochs: PositiveInt = Field(1, description="Epochs that every trial trains: the first rung.")
    reduction_factor: int = Field(
        2, ge=2, description="One trial in this many goes on from a rung to the next, which is as many times as far."
    )
    share: float = Field(1.0, gt=0, le=1, description="Share of the training rows that trials see.")
    concurrent: PositiveInt = Field(2, description="Trials at a time.")
    workers: PositiveInt = Field(1, description="Workers of a trial, reserved as one.")
    search: dict[str, Range] = Field(
        default={
            "training.learning_rate": Range(loguniform=(1e-4, 3e-3)),
            "method.rank": Range(choice=(4, 8, 16)),
        },
        description="Dotted key of method or training, or base_model, to a range: {loguniform: [a, b]}, "
        "{uniform: [a, b]} or {choice: [...]}.",
    )

    @field_validator("scheduler", mode="before")
    @classmethod
    def _trials_do_not_pause(cls, scheduler: Any) -> Any:
        if scheduler == "pbt":
            raise ValueError(
                "population-based training is not supported: no trial goes on with another's weights and other values; "
                "use halving or asha"
            )
        return scheduler

    @model_validator(mode="after")
    def _grid_has_choices(self) -> SweepSpec:
        open_ended = [key for key, wanted in self.search.items() if wanted.choice is None]
        if self.algorithm == "grid" and open_ended:
            raise ValueError(f"algorithm: grid needs a choice for {open_ended[0]}")
        return self


class EvaluationSpec(Part):
    metric: str = Field(
        "accuracy",
        description="The metric that the gate compares, when not given the first of the task's (docs/tasks.md); sweeps "
        "compare validation loss.",
    )
    bootstrap: PositiveInt = Field(1000, description="Resamples behind each interval.")
    confidence: Share = Field(0.95, description="Confidence of each interval.")
    max_loss_on_old: float = Field(
        0.02, ge=0, description="What a challenger may lose on the old test set, on the measured values."
    )
    alpha: Share = Field(0.05, description="Chance that the gate promotes a challenger that is no better.")
    max_loss_on_slice: float = Field(
        0.05, ge=0, description="Accuracy that a challenger may lose on a slice; more, and not by chance, refuses it."
    )
    min_slice_rows: PositiveInt = Field(30, description="Rows that a slice needs to be judged by.")
    topics: int = Field(5, ge=0, le=50, description="Clusters of like texts that are slices too; 0 for none.")
    robustness_rows: int = Field(
        200, ge=0, description="Test rows that are answered again with typos, other case, other punctuation."
    )
    max_latency_ratio: PositiveFloat | None = Field(
        2.0, description="Times the champion's latency that a challenger may take; null does not judge it."
    )
    max_size_ratio: PositiveFloat | None = Field(
        2.0, description="Times the champion's weights in memory that a challenger may have; null does not judge it."
    )
    anchor: str | None = Field(
        None,
        description="File of rows that must not be forgotten, input and label columns as in `data`; the old test rows "
        "when not given. Relative to the spec file.",
    )


class CanarySpec(Part):
    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the traffic that a canary, a version on trial beside the champion, gets; 0 is no canary.",
    )
    mode: Literal["canary", "shadow"] = Field(
        "canary",
        description="canary: it answers its share, and a key (header X-Rehone-Key, else the inputs) always goes the "
        "same way; shadow: the champion answers all, and the canary gets copies of a share of its batches, which "
        "nobody sees.",
    )
    rows: PositiveInt = Field(
        500, description="Answers to different keys that a canary must have given to be promoted."
    )
    labels: int = Field(0, ge=0, description="Of these, how many must have a true label by then; 0 waits for none.")
    false_alarm_rate: Share = Field(
        0.05, description="Chance that a canary which is as good as the champion is dropped."
    )
    max_fault_share: float = Field(
        0.01, ge=0, lt=1, description="Share of its batches that may fail beyond the champion's share."
    )
    max_latency_ratio: float = Field(
        1.5,
        ge=1,
        description="Times the champion's time for a batch of the same size, or a shadow's for the same batch, that a "
        "canary may take.",
    )
    max_loss: float = Field(0.02, ge=0, lt=1, description="Accuracy that a canary may lose on what has labels.")
    queue: PositiveInt = Field(256, description="Inputs that may wait for a shadow on a replica; more are not copied.")
    shadow_time: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Share of the time in which a shadow may be at work on a replica; beyond it nothing is copied.",
    )
    timeout_seconds: PositiveFloat = Field(
        10.0,
        description="How long a canary may take; then the champion answers in its place, and it counts as a fault.",
    )

    @model_validator(mode="after")
    def _champion_is_left_something(self) -> CanarySpec:
        if self.mode == "canary" and self.share == 1:
            raise ValueError("share 1 leaves the champion nothing to be compared by; only mode: shadow can have it")
        return self


class JwtSpec(Part):
    issuer: str = Field(min_length=1, description="The `iss` that a token must have, to the letter.")
    audience: str = Field(min_length=1, description="The `aud` that it must have, alone or among others.")
    jwks_url: str = Field(description="Where the issuer's public keys are; https, or http on this machine.")
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="Signatures that are taken; none of a shared secret."
    )
    models_claim: str | None = Field(
        None,
        description="Claim with the models that a token may ask, a list or names parted by spaces, `*` for all; "
        "without one every token of this issuer and audience may ask.",
    )
    models_prefix: str = Field("", description="What a model's name has before it there, as `model:` in a `scope`.")
    leeway_seconds: float = Field(10.0, ge=0, le=300, description="By how much the issuer's clock may be off.")
    away_seconds: float = Field(
        86_400.0,
        ge=600,
        description="How long the issuer's keys are good after they were last read, while it cannot be reached; then "
        "tokens get 503.",
    )

    @field_validator("jwks_url")
    @classmethod
    def _keys_come_unchanged(cls, url: str) -> str:
        parts = urlsplit(url)
        here = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if not parts.hostname or (parts.scheme != "https" and not here):
            raise ValueError("is no https URL: whoever can change the keys on their way can sign tokens")
        return url


class AutoscaleSpec(Part):
    max: int = Field(0, ge=0, description="Replicas at most; 0 keeps `serving.replicas`, whatever is asked.")
    min: int = Field(
        1,
        ge=0,
        description="Replicas at least. 0 ends the last one when nobody asks; the next request waits until one is up.",
    )
    target_ongoing: PositiveFloat = Field(16.0, description="Requests at once that a replica should have on average.")
    idle_seconds: PositiveFloat = Field(600.0, description="How long there must be fewer before a replica ends.")

    @model_validator(mode="after")
    def _is_a_range(self) -> AutoscaleSpec:
        if self.max and self.min > self.max:
            raise ValueError(f"min is {self.min}, above max, which is {self.max}")
        return self


class AdaptersSpec(Part):
    most: int = Field(
        0,
        ge=0,
        description="Other models that a replica may hold beside the spec's own: champions of the registry that are "
        "LoRA adapters on the same base model, for the same task. Each is loaded when it is first asked for, and the "
        "one longest unused makes room. 0: the server answers for its own model alone.",
    )
    most_mib: PositiveFloat | None = Field(
        None,
        description="MiB that the weights of these adapters may take together, whose sizes may differ; the one asked "
        "for last stays, however large it is.",
    )
    pinned: tuple[str, ...] = Field(
        (), description="Of these, models that are loaded at the start and make no room for others."
    )

    @model_validator(mode="after")
    def _others_have_room(self) -> AdaptersSpec:
        if self.pinned and len(self.pinned) >= self.most:
            raise ValueError(f"{len(self.pinned)} are pinned: `most` must be larger, so that others have room")
        return self


class VllmSpec(Part):
    """Named as vLLM names them."""

    gpu_memory_utilization: float = Field(
        0.3,
        gt=0,
        le=1,
        description="Share of each GPU's memory for a version's weights and texts. A champion, a canary and a version "
        "that is asked before its promotion may be loaded at once, each with PyTorch's network beside it.",
    )
    max_model_len: PositiveInt | None = Field(
        None, description="Tokens of an input and its answer; training.max_length + training.max_answer when not given."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "float32",
        description="float32 writes the trainer's answers to the letter, or does not serve. In half precision (auto: "
        "whichever vLLM takes) texts may come to differ, and a version serves when its golden answers are as likely.",
    )
    tensor_parallel_size: PositiveInt = Field(1, description="GPUs of a node that share a version's weights.")

    @property
    def engine(self) -> str:
        """What answers, as certificates call it."""
        return "vllm" if self.dtype == "float32" else f"vllm-{self.dtype}"


class ServingSpec(Part):
    port: int = Field(8000, ge=0, le=65535, description="HTTP port; 0 takes a free one.")
    replicas: PositiveInt = Field(1, description="Ray Serve replicas.")
    gpus: float = Field(0.0, ge=0, description="GPUs of a replica; replicas share one by fractions of it.")
    autoscale: AutoscaleSpec = AutoscaleSpec()  # type: ignore[call-arg]
    engine: Literal["torch", "onnx", "onnx-int8", "openvino", "vllm", "auto"] = Field(
        "torch",
        description="What answers: PyTorch; on CPUs ONNX Runtime, in fp32 or, where accuracy on the test rows holds, "
        "with eight bits, or OpenVINO, in bf16 where the processor has it and accuracy holds; vllm, for "
        "text-generation and preference-tuning, where REHONE_VLLM or the PATH has it; auto takes the fastest that "
        "agrees (vllm on a GPU only). Versions are compiled when they are loaded.",
    )
    max_batch_size: PositiveInt = Field(
        32, description="Inputs that go through the model together: what waits when it is free, like lengths first."
    )
    max_inputs: PositiveInt = Field(256, description="Inputs that one request may carry.")
    max_characters: PositiveInt = Field(
        10_000_000, description="Length of one input: a text, or an image as base64, which takes 4/3 of its file."
    )
    explain_inputs: PositiveInt = Field(8, description="Inputs that one request to explain may carry.")
    explain_steps: int = Field(
        32, ge=2, le=512, description="Steps of integrated gradients: forward and backward passes per explained input."
    )
    flush_seconds: PositiveFloat = Field(2.0, description="How often spools move to the prediction log.")
    poll_seconds: PositiveFloat = Field(1.0, description="How often a replica asks for the champion.")
    auth: Literal["none", "keys", "jwt", "keys-or-jwt"] = Field(
        "none",
        description="keys: every request but /healthz needs an API key (`rehone keys create`); jwt: a token of "
        "serving.jwt's issuer; keys-or-jwt: one of the two.",
    )
    jwt: JwtSpec | None = Field(None, description="Whose tokens are taken.")
    max_ongoing: PositiveInt = Field(
        128, description="Requests that a replica answers at once; more get 429 and Retry-After."
    )
    rate_per_minute: float = Field(
        0.0, ge=0, description="Requests a minute and caller (key, else address) on a replica; 0 for any number."
    )
    max_body_bytes: PositiveInt = Field(64 * 2**20, description="Size of a request's body; a larger one gets 413.")
    timeout_seconds: PositiveFloat = Field(60.0, description="How long a request may take; then it gets 504.")
    access_log: bool = Field(True, description="Write a line of JSON for each request, with its prediction ids.")
    canary: CanarySpec = CanarySpec()  # type: ignore[call-arg]
    adapters: AdaptersSpec = AdaptersSpec()  # type: ignore[call-arg]
    vllm: VllmSpec = VllmSpec()  # type: ignore[call-arg]

    @property
    def most_replicas(self) -> int:
        return self.autoscale.max or self.replicas

    @property
    def first_replicas(self) -> int:
        """At the start, where it is found out what cannot be served."""
        return max(self.autoscale.min, 1) if self.autoscale.max else self.replicas

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray reserves for a replica."""
        return bundle(1, self.gpus)

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Without which a server does not begin."""
        return [self.bundle] * self.first_replicas

    @model_validator(mode="after")
    def _device_can_do_it(self) -> ServingSpec:
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus: {self.gpus:g} is neither a share of one GPU nor several whole ones")
        if self.gpus and self.engine in {"onnx", "onnx-int8", "openvino"}:
            raise ValueError(f"engine: {self.engine} runs on CPUs; gpus: 0 goes with it")
        together = self.vllm.tensor_parallel_size
        if together > 1 and self.gpus != together:
            raise ValueError(f"vllm.tensor_parallel_size: {together} goes with gpus: {together}")
        return self

    @model_validator(mode="after")
    def _a_base_is_shared_uncompiled(self) -> ServingSpec:
        if self.adapters.most and self.engine != "torch":
            raise ValueError(f"engine: {self.engine} is for one model; adapters share a base with engine: torch")
        return self

    @model_validator(mode="after")
    def _issuer_is_named_and_asked(self) -> ServingSpec:
        if self.auth.endswith("jwt") != (self.jwt is not None):
            raise ValueError(f"auth: {self.auth} goes {'with' if self.jwt is None else 'without'} a part jwt")
        return self


_LEAST_LEVEL = 1e-4


class MonitoringSpec(Part):
    window: PositiveInt = Field(250, description="Predictions per window.")
    false_alarm_rate: float = Field(
        0.05, gt=0, lt=1, description="Chance of any alarm in `looks` windows in which nothing has changed."
    )
    looks: PositiveInt = Field(100, description="Windows over which false_alarm_rate holds, each at an equal share.")
    consecutive: PositiveInt = Field(3, description="Windows in a row that must drift before it counts.")
    accuracy_drop: Share = Field(0.05, description="Drop below the Scorecard's accuracy that counts.")
    min_labels: PositiveInt = Field(200, description="Labelled rows that must have come in before a retraining.")
    new_labels: PositiveInt | None = Field(
        None, description="Labelled rows that no retraining has used, from which it is retrained without other alarm."
    )
    max_age_days: PositiveFloat | None = Field(None, description="Age of the champion from which it is retrained.")
    cooldown_minutes: float = Field(60.0, ge=0, description="Least time between two retrainings.")
    budget_hours: PositiveFloat | None = Field(
        None, description="Device-hours (wall clock times workers) that retrainings may take in 30 days."
    )
    roll_back: bool = Field(
        True,
        description="Go back by itself when labels of production show a new champion worse than the version before it, "
        "by more than evaluation.max_loss_on_old.",
    )
    approval: bool = Field(
        False, description="A version that the gate lets pass waits for a person (`rehone ui`, `rehone promote`)."
    )
    check_seconds: PositiveFloat = Field(5.0, description="How often the watch looks.")
    tidy_hours: float = Field(
        24.0,
        ge=0,
        description="How often the watch makes few files of the many of this model's prediction log; 0: never.",
    )
    keep_days: PositiveFloat | None = Field(
        None,
        description="Answers of this model and reports of its windows that are older are deleted then; labels and the "
        "journal never are.",
    )

    @property
    def level(self) -> float:
        """Chance of an alarm in one window in which nothing has changed (Bonferroni over `looks`)."""
        return self.false_alarm_rate / self.looks

    @model_validator(mode="after")
    def _can_be_drawn(self) -> MonitoringSpec:
        # The draws of a permutation test grow with 1 / level: 13 s a drifted window at this one.
        if self.level < _LEAST_LEVEL:
            raise ValueError(f"false_alarm_rate / looks is {self.level:g}, below {_LEAST_LEVEL:g}: ask for fewer looks")
        return self


class RetrainSpec(Part):
    start: Literal["champion", "base"] = Field("champion", description="Weights that a retraining starts from.")
    epochs: PositiveInt = Field(3, description="Passes over old and new rows, at most.")
    rate: float = Field(0.4, gt=0, le=1, description="Share of the champion's learning rate, when starting from it.")
    replay: float = Field(1.0, ge=0, le=1, description="Share of the old training rows that is trained on again.")
    remedies: tuple[Literal["blend", "replay", "ewc"], ...] = Field(
        ("blend", "replay", "ewc"),
        description="What a retraining from the champion tries while it loses more than evaluation.max_loss_on_old: "
        "blend goes back part of the way to the champion's weights (always first: it trains nothing), replay takes all "
        "old rows (twice, if it had all), ewc holds weights (where an answer is one label); each on top of the one "
        "before.",
    )
    blend: Share = Field(
        0.8, description="How far from the champion's weights to the trained ones a blend lies (Wortsman et al. 2022)."
    )
    ewc_lambda: PositiveFloat = Field(
        1000.0, description="Strength of elastic weight consolidation (Kirkpatrick et al. 2017)."
    )
    ewc_rows: PositiveInt = Field(200, description="Old rows that its Fisher information is estimated on.")
    feedback_test_share: Share = Field(0.2, description="Share of the labelled feedback held out to judge on.")

    @field_validator("remedies")
    @classmethod
    def _remedies_differ(cls, remedies: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(remedies)) != len(remedies):
            raise ValueError("names a remedy twice")
        return remedies


class CardSpec(Part):
    intended_use: str | None = Field(None, description="What the model is for, and who uses it, as its card says.")
    limitations: str | None = Field(None, description="What it is not for, and where it is known to fail.")
    licence: str | None = Field(None, description="Licence of the model, best as its SPDX name: apache-2.0.")
    contact: str | None = Field(None, description="Whom to ask about it.")


class Spec(Part):
    """A project: what to fine-tune, on what, how, and what to do when production drifts."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", description="Names experiment, model and jobs.")
    task: str = Field(
        "text-classification", description="What the model is to do.", json_schema_extra={"enum": list(TASKS)}
    )
    base_model: str = Field(description="Hub name, folder, or package:IMPORT_NAME/folder inside an installed package.")
    data: DataSpec
    audit: AuditSpec = AuditSpec()  # type: ignore[call-arg]
    method: MethodSpec = MethodSpec()  # type: ignore[call-arg]
    training: TrainingSpec = TrainingSpec()  # type: ignore[call-arg]
    scaling: ScalingSpec = ScalingSpec()  # type: ignore[call-arg]
    sweep: SweepSpec = SweepSpec()  # type: ignore[call-arg]
    evaluation: EvaluationSpec = EvaluationSpec()  # type: ignore[call-arg]
    serving: ServingSpec = ServingSpec()  # type: ignore[call-arg]
    monitoring: MonitoringSpec = MonitoringSpec()  # type: ignore[call-arg]
    retrain: RetrainSpec = RetrainSpec()  # type: ignore[call-arg]
    card: CardSpec = CardSpec()  # type: ignore[call-arg]

    @model_validator(mode="before")
    @classmethod
    def _metric_is_the_tasks(cls, given: Any) -> Any:
        """The one default that follows from another part of the spec."""
        if not isinstance(given, dict) or given.get("task", "") not in TASKS:
            return given
        evaluation = given.get("evaluation", {})
        if not isinstance(evaluation, dict) or "metric" in evaluation:
            return given
        return given | {"evaluation": evaluation | {"metric": next(iter(tasks.get(given["task"]).targets.METRICS))}}

    @model_validator(mode="after")
    def _batch_can_be_made(self) -> Spec:
        batch, workers, micro = self.training.global_batch_size, self.scaling.workers, self.training.micro_batch_size
        if isinstance(workers, tuple):  # some of so many workers fit no batch: their shares then differ by a row
            if batch < workers[1]:
                raise ValueError(f"training.global_batch_size {batch} has no row for each of {workers[1]} workers")
        elif batch % (workers * micro):
            raise ValueError(
                f"training.global_batch_size {batch} is no multiple of "
                f"scaling.workers x training.micro_batch_size = {workers} x {micro} = {workers * micro}"
            )
        return self

    @model_validator(mode="after")
    def _rows_can_be_packed(self) -> Spec:
        if self.data.packing and (self.task != "text-generation" or self.method.name == "prompt-tuning"):
            raise ValueError(
                f"data.packing is for text-generation and its weights, not for {self.task} with {self.method.name}"
            )
        return self

    @model_validator(mode="after")
    def _preferences_have_a_reference(self) -> Spec:
        prefers = tasks.get(self.task).targets.NAME == preference.NAME
        if prefers and self.method.name == "full":
            raise ValueError(f"{self.task} needs an adapter: what the model would say without it is the reference")
        if not prefers and self.data.rejected is not None:
            raise ValueError(f"data.rejected is for preference-tuning, {self.task} learns from one answer")
        return self

    @model_validator(mode="after")
    def _device_can_do_it(self) -> Spec:
        training, on_gpu = self.training, self.scaling.use_gpu
        wanted = [f"training.offload: {training.offload}"] if training.offload != "none" else []
        wanted += ["training.precision: fp16"] if training.precision == "fp16" else []
        wanted += ["method.name: qlora"] if self.method.name == "qlora" else []
        if wanted and not on_gpu:
            raise ValueError(f"{wanted[0]} needs a GPU (scaling.use_gpu: true)")
        if not self.zero_stages:
            raise ValueError(f"training.offload: parameters shards weights, which method {self.method.name} has whole")
        if training.zero_stage != "auto" and training.zero_stage not in self.zero_stages:
            stages = " to ".join(dict.fromkeys(str(self.zero_stages[end]) for end in (0, -1)))
            raise ValueError(
                f"training.zero_stage {training.zero_stage}: method {self.method.name} in {training.precision} with "
                f"offload: {training.offload} goes with stage {stages}"
            )
        return self

    @property
    def gpus(self) -> float:
        """That serving and a retraining beside it need at once."""
        return sum(part.get("GPU", 0.0) for part in (*self.serving.bundles, *self.scaling.bundles))

    @property
    def zero_stages(self) -> range:
        """The ZeRO stages that what is asked for goes with.

        Half precision needs one that keeps an fp32 copy by name, from which a training can go on.
        """
        most = 2 if self.method.whole_weights else 3
        if self.training.offload == "parameters":
            return range(3, most + 1)
        return range(int(self.training.offload == "optimizer" or self.training.precision != "fp32"), most + 1)

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"{task!r} is none of {', '.join(TASKS)}")
        return task

    @model_validator(mode="after")
    def _a_base_is_shared_by_its_kin(self) -> Spec:
        if self.serving.adapters.most and self.method.name not in SHARING:
            shared = ", ".join(sorted(SHARING))
            raise ValueError(f"serving.adapters: method {self.method.name} shares no base, as {shared} do")
        return self

    @model_validator(mode="after")
    def _vllm_writes_texts(self) -> Spec:
        if self.serving.engine == "vllm" and (self.task not in WRITTEN_ON or self.method.name == "prompt-tuning"):
            raise ValueError(
                f"serving.engine: vllm is for {' and '.join(sorted(WRITTEN_ON))} by whole weights, not for {self.task} "
                f"with {self.method.name}"
            )
        return self

    @model_validator(mode="after")
    def _vllm_has_room_for_a_text(self) -> Spec:
        room, longest = self.serving.vllm.max_model_len, self.bounds.input + self.bounds.answer
        if room is not None and room < longest:
            raise ValueError(
                f"serving.vllm.max_model_len {room} is less than training.max_length + training.max_answer = {longest}"
            )
        return self

    @model_validator(mode="after")
    def _only_texts_are_masked(self) -> Spec:
        name = tasks.get(self.task).inputs.NAME
        if self.data.pii == "mask" and name != "text":
            raise ValueError(f"data.pii: mask hides what is written in a text; {self.task} reads an {name}")
        return self

    @model_validator(mode="after")
    def _task_has_the_metric(self) -> Spec:
        known = list(tasks.get(self.task).targets.METRICS)
        if self.evaluation.metric not in known:
            raise ValueError(f"evaluation.metric {self.evaluation.metric!r} is none of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _only_labels_are_balanced(self) -> Spec:
        if self.data.balance != "none" and not tasks.get(self.task).targets.CLOSED:
            raise ValueError(f"data.balance: {self.data.balance} needs one label a row, and {self.task} has others")
        return self

    @model_validator(mode="after")
    def _sweep_fits(self) -> Spec:
        if self.sweep.grace_epochs > self.sweep.epochs:
            raise ValueError("sweep.grace_epochs is more than sweep.epochs")
        if self.training.global_batch_size % (self.sweep.workers * self.training.micro_batch_size):
            raise ValueError("training.global_batch_size is no multiple of sweep.workers x training.micro_batch_size")
        for key, wanted in self.sweep.search.items():
            _require_searchable(key)
            for value in wanted.choice or wanted.uniform or wanted.loguniform or ():
                self._require_value(key, value)
        return self

    def _require_value(self, key: str, value: Any) -> None:
        part, _, name = key.partition(".")
        if not name:
            return
        now = getattr(self, part)
        try:
            type(now).model_validate(now.model_dump(mode="json") | {name: value})
        except ValidationError as error:
            raise ValueError(f"sweep.search: {key} cannot be {value!r}: {error.errors()[0]['msg']}") from None

    def accumulation(self, workers: int) -> int:
        """Micro-batches that each of so many workers takes to one optimizer step."""
        share = -(-self.training.global_batch_size // workers)
        return -(-share // self.training.micro_batch_size)

    @property
    def bounds(self) -> Bounds:
        training = self.training
        return Bounds(training.max_length, training.max_answer, training.beta, self.data.packing)

    @property
    def hash(self) -> str:
        """Twelve hex digits of the resolved spec. Of a path only the last name counts: a project that lies elsewhere,
        or was sent elsewhere, is the same. What is in its files is in the dataset's own hash.
        """
        text = json.dumps(_unplaced(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def with_values(self, values: dict[str, Any]) -> Spec:
        """A copy with dotted keys set, validated again."""
        tree = self.model_dump(mode="json")
        for key, value in values.items():
            set_dotted(tree, key, value)
        return Spec.model_validate(tree)


def _unplaced(value: Any) -> Any:
    """A tree of plain values with the last name of each absolute path in its place."""
    if isinstance(value, dict):
        return {key: _unplaced(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_unplaced(one) for one in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith("/") else value


def set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.c` in nested dicts, making the ones that are missing."""
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            below = tree[parent] = {}
        tree = below
    tree[last] = value


def field_type(key: str) -> Any:
    """What the spec holds under a dotted key. Raises ValueError."""
    model: Any = Spec
    for name in key.split("."):
        fields = getattr(model, "model_fields", {})
        if name not in fields:
            raise ValueError(f"sweep.search: the spec has no {key!r}")
        model = fields[name].annotation
    return model


_NOT_OF_A_TRIAL = frozenset(
    f"training.{name}" for name in ("epochs", "evaluations_per_epoch", "patience", "max_failures", "zero_stage")
)


def _require_searchable(key: str) -> None:
    field_type(key)
    part, _, name = key.partition(".")
    if part == "data":
        raise ValueError(f"sweep.search: {key} would change the rows by which trials are compared")
    inside = bool(name) and part in {"method", "training"} and key not in _NOT_OF_A_TRIAL
    if not inside and key != "base_model":
        raise ValueError(f"sweep.search: no trial would feel {key}; search keys of method and training, or base_model")
