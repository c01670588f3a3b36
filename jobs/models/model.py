"""Models on disk: the base model, PEFT around it, and the files of a trained one.

A trained model's folder holds `adapter/` (PEFT) or `weights/` (full fine-tuning) and `processor/`; which base model
and labels they belong to is in the manifest beside them (`publish.py`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cluster.errors import SpecError
from jobs import tasks
from jobs.inputs import texts
from jobs.spec import MethodSpec, Spec
from jobs.targets import preference, text
from jobs.tasks.task import Task
from jobs.training import device

PACKAGE = "package:"

_PROMPTED = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""What PEFT calls the kinds of model that it can put a prompt in front of."""


P = ParamSpec("P")
T = TypeVar("T")
_building = threading.RLock()


def _alone(build: Callable[P, T]) -> Callable[P, T]:
    """One at a time in a process: PEFT and transformers patch torch while they build, under all of its threads."""

    @wraps(build)
    def built(*given: P.args, **named: P.kwargs) -> T:
        with _building:
            return build(*given, **named)

    return built


def locate(base_model: str) -> str:
    """A folder or hub name that transformers understands. Raises SpecError when a package or folder is not there."""
    if not base_model.startswith(PACKAGE):
        if base_model.startswith(("/", ".")) and not Path(base_model).is_dir():
            raise SpecError("no such folder", where=f"base_model {base_model}")
        return base_model
    package, _, inside = base_model.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SpecError(
            f"package {package!r} is not installed", where=f"base_model {base_model}", mend="pip install it"
        )
    folder = Path(next(iter(found.submodule_search_locations))) / inside
    if not folder.is_dir():
        raise SpecError(f"package {package!r} has no folder {inside!r}", where=f"base_model {base_model}")
    return str(folder)


def check(spec: Spec) -> None:
    """Raises SpecError when the base model's description cannot be read, or is of no model for the spec's task."""
    from transformers import AutoConfig, AutoModel

    base_model, auto = spec.base_model, tasks.get(spec.task).auto()
    name = locate(base_model)
    if not Path(name).is_dir() and os.environ.get("HF_HUB_OFFLINE") == "1":
        return
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be loaded: {str(error).splitlines()[0]}", where=f"base_model {base_model}") from None
    # transformers has no other way to ask; AutoModel is any model's, of which encoders of texts are meant.
    reads = auto is not AutoModel or (hasattr(config, "vocab_size") and not config.is_encoder_decoder)
    if type(config) not in auto._model_mapping or not reads:  # noqa: SLF001
        raise SpecError(f"a {config.model_type} model is none for {spec.task}", where=f"base_model {base_model}")
    if spec.method.name == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        raise SpecError("bitsandbytes is not installed", where="method.name qlora", mend="pip install 'rehone[qlora]'")
    if spec.method.name == "prompt-tuning":
        _prompted(tasks.get(spec.task))
    if spec.training.activation_checkpointing:
        kind = auto._model_mapping[type(config)]  # noqa: SLF001 - and imported by that, which takes seconds
        if not kind.supports_gradient_checkpointing:
            raise SpecError(f"a {config.model_type} model cannot do it", where="training.activation_checkpointing")
    check_length(config, spec)


def check_length(config: Any, spec: Spec) -> None:
    """Raises SpecError when a model of this transformers config has too few positions for the spec's longest row."""
    training, where = spec.training, f"training.max_length {spec.training.max_length}"
    longest = training.max_length
    if tasks.get(spec.task).targets.NAME in {text.NAME, preference.NAME} and not config.is_encoder_decoder:
        # A decoder alone reads on what it writes.
        longest, where = longest + training.max_answer, f"{where} and max_answer {training.max_answer} together"
    if spec.method.name == "prompt-tuning":
        longest, where = (
            longest + spec.method.virtual_tokens,
            f"{where} with {spec.method.virtual_tokens} virtual tokens",
        )
    positions = getattr(config, "max_position_embeddings", None) or longest
    if longest > positions:
        raise SpecError(f"is more than the base model's {positions} positions", where=where)


@_alone
def base(task: Task, base_model: str, labels: Sequence[str], seed: int, **more: Any) -> Any:
    """The base model with a new head for `labels`; the head's weights follow from `seed`. `more` is transformers'."""
    import torch

    _quiet()
    torch.manual_seed(seed)
    return task.auto().from_pretrained(
        locate(base_model),
        **task.options(labels),
        ignore_mismatched_sizes=True,  # a head for other labels is made anew
        dtype=torch.float32,
        **more,
    )


def four_bit(spec: Spec, task: Task) -> dict[str, Any]:
    """What makes `base` hold linear layers in 4 bits, NF4 with constants that are quantised too, on this device.

    Whole are the task's head, which is trained, and what transformers leaves whole by itself.
    """
    import torch
    from transformers import BitsAndBytesConfig

    precision = spec.training.precision
    bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype={"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision],
        llm_int8_skip_modules=list(task.head) or None,
    )
    return {"quantization_config": bits, "device_map": {"": device.of(spec)}}


def trainable(spec: Spec, labels: Sequence[str], start: Path | None = None) -> Any:
    """The model to train: fresh from the base, or going on from a trained model's folder."""
    task = tasks.get(spec.task)
    more = four_bit(spec, task) if spec.method.name == "qlora" else {}
    if start is not None:
        model = load(start, task, spec.base_model, labels, train=True, **more)
    else:
        model = base(task, spec.base_model, labels, spec.training.seed, **more)
        model = model if spec.method.name == "full" else with_adapter(model, spec.method, task)
    return checkpointing(model) if spec.training.activation_checkpointing else model


def checkpointing(model: Any) -> Any:
    """The model, whose layers compute again for their gradients what they do not keep."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def with_adapter(model: Any, method: MethodSpec, task: Task) -> Any:
    """PEFT's adapters around a model, whose head is trained whole.

    Raises SpecError when no module bears a name in `target_modules`, or the method knows no modules of such a model.
    """
    from peft import get_peft_model

    if getattr(model, "is_loaded_in_4bit", False):
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        return get_peft_model(model, _adapter(model, method, task))
    except ValueError:  # PEFT's word for targets that match nothing
        named = method.target_modules if isinstance(method.target_modules, str) else ", ".join(method.target_modules)
        raise SpecError(f"no module is named {named}", where="method.target_modules") from None


def _adapter(model: Any, method: MethodSpec, task: Task) -> Any:
    """PEFT's configuration."""
    from peft import IA3Config, LoraConfig, PromptTuningConfig

    if method.name == "prompt-tuning":
        return PromptTuningConfig(task_type=_prompted(task), num_virtual_tokens=method.virtual_tokens)
    head = [name for name in task.head if hasattr(model, name)]
    targets = method.target_modules if isinstance(method.target_modules, str) else list(method.target_modules)
    if method.name == "ia3":
        # PEFT knows keys, values and feed-forward of the usual models; named targets are taken for keys and values.
        known = None if targets == "all-linear" else targets
        return IA3Config(target_modules=known, feedforward_modules=None if known is None else [], modules_to_save=head)
    return LoraConfig(
        use_dora=method.name == "dora",
        use_rslora=method.name == "rslora",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=targets,
        modules_to_save=head,
        exclude_modules=rf"(.*\.)?({'|'.join(head)})(\..*)?" if head else None,
    )


def _prompted(task: Task) -> str:
    """PEFT's name for such a model. Raises SpecError where a prompt cannot be put in front of its inputs."""
    kind = task.auto().__name__
    if kind not in _PROMPTED or task.inputs.NAME != texts.NAME:
        raise SpecError("goes with tasks that read a text and label or write", where="method.name prompt-tuning")
    return _PROMPTED[kind]


@_alone
def load(
    folder: Path,
    task: Task,
    base_model: str,
    labels: Sequence[str],
    *,
    train: bool = False,
    merge: bool = False,
    **more: Any,
) -> Any:
    """The model in a trained folder. `merge` folds the adapter into the base weights: same answers, less to compute.

    A learned prompt cannot be folded in and stays in front. `more` is for `base`.
    """
    if (folder / "weights").is_dir():
        _quiet()
        return task.auto().from_pretrained(folder / "weights")
    from peft import PeftModel

    made = base(task, base_model, labels, 0, **more)
    model = PeftModel.from_pretrained(made, str(folder / "adapter"), is_trainable=train)
    return model.merge_and_unload() if merge and not model.active_peft_config.is_prompt_learning else model


def adapter_kind(folder: Path) -> str:
    """PEFT's word for the method of the adapter in a trained folder: LORA (DoRA too), IA3."""
    tree = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    return str(tree["peft_type"])


@_alone
def adapted(net: Any, folder: Path, name: str) -> Any:
    """A base model with the adapter of a trained folder on it, to answer only."""
    from peft import PeftModel

    return PeftModel.from_pretrained(net, str(folder / "adapter"), adapter_name=name)


@_alone
def add_adapter(net: Any, folder: Path, name: str) -> None:
    """One more beside those that `adapted` has, and answers with none of them yet."""
    device = str(next(net.parameters()).device)
    net.load_adapter(str(folder / "adapter"), name, torch_device=device, low_cpu_mem_usage=True)


def adapted_layers(net: Any) -> list[Any]:
    """The layers of a model that differ from adapter to adapter, heads too: what takes `adapter_names`."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return [layer for layer in net.modules() if isinstance(layer, (BaseTunerLayer, AuxiliaryTrainingWrapper))]


def save(model: Any, state: dict[str, Any] | None, folder: Path) -> None:
    """Write `adapter/` or `weights/`. `state` holds gathered weights where ZeRO stage 3 has them in shards."""
    if hasattr(model, "peft_config"):
        # Not the base's embeddings, which nothing has changed and which a speech model has none of.
        model.save_pretrained(str(folder / "adapter"), state_dict=state, save_embedding_layers=False)
    else:
        model.save_pretrained(str(folder / "weights"), state_dict=state)


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()  # its warning that the head is new is what we asked for
    logging.disable_progress_bar()


def trainable_share(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; ZeRO stage 3 keeps the true size in `ds_numel`."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(n for n, t in sizes if t), sum(n for n, _ in sizes)
