from __future__ import annotations

import pytest
from pydantic import ValidationError

from jobs.spec import Spec

BASE = {"name": "x", "base_model": "m", "data": {"source": "a.csv"}}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"training": {"global_batch_size": 33}}, "no multiple of scaling.workers x training.micro_batch_size"),
        ({"scaling": {"workers": [4, 2]}}, "[fewest, most] is turned round: [2, 4]"),
        ({"scaling": {"workers": [1, 99]}}, "global_batch_size 32 has no row for each of 99 workers"),
        ({"evaluation": {"metric": "bleu"}}, "'bleu' is none of accuracy, macro_f1"),
        ({"data": {"source": "a", "split": {"by": "group"}}}, "split.by: group needs data.group"),
        ({"data": {"source": "a", "split": {"by": "time"}}}, "split.by: time needs data.time"),
        ({"data": {"source": "a", "split": {"train": 0.9}}}, "must be 1, not 1.2"),
        ({"data": {"source": "a", "labels": ["one"]}}, "at least two labels"),
        ({"data": {"source": "a", "labels": ["a", "a"]}}, "each named once"),
        ({"sweep": {"grace_epochs": 9}}, "more than sweep.epochs"),
        ({"sweep": {"search": {"training.lr": {"uniform": [0, 1]}}}}, "the spec has no 'training.lr'"),
        ({"sweep": {"search": {"method.rank": {"uniform": [2, 1]}}}}, "low 2 is not below high 1"),
        ({"sweep": {"search": {"method.rank": {}}}}, "needs exactly one of"),
        ({"sweep": {"search": {"method.rank": {"choice": []}}}}, "choice is empty"),
        (
            {"sweep": {"search": {"method.rank": {"choice": [4, -1]}}}},
            "method.rank cannot be -1: Input should be greater",
        ),
        ({"sweep": {"search": {"method.rank": {"uniform": [1.5, 8]}}}}, "method.rank cannot be 1.5"),
        (
            {"sweep": {"search": {"data.pii": {"choice": ["mask"]}}}},
            "would change the rows by which trials are compared",
        ),
        ({"sweep": {"search": {"training.epochs": {"choice": [1]}}}}, "no trial would feel training.epochs"),
        ({"sweep": {"search": {"serving.port": {"choice": [1]}}}}, "no trial would feel serving.port"),
        ({"sweep": {"algorithm": "grid"}}, "algorithm: grid needs a choice for training.learning_rate"),
        ({"sweep": {"scheduler": "pbt"}}, "population-based training is not supported"),
        (
            {"serving": {"engine": "vllm"}},
            "vllm is for preference-tuning and text-generation by whole weights, not for text-classification with lora",
        ),
        (
            {"serving": {"engine": "vllm"}, "task": "text-generation", "method": {"name": "prompt-tuning"}},
            "not for text-generation with prompt-tuning",
        ),
        (
            {"serving": {"vllm": {"max_model_len": 100}}, "training": {"max_length": 64, "max_answer": 64}},
            "serving.vllm.max_model_len 100 is less than training.max_length + training.max_answer = 128",
        ),
        ({"serving": {"vllm": {"dtype": "int8"}}}, "Input should be 'auto', 'bfloat16', 'float16' or 'float32'"),
        ({"serving": {"vllm": {"gpu_memory_utilization": 1.5}}}, "Input should be less than or equal to 1"),
        ({"serving": {"vllm": {"tensor_parallel_size": 0}}}, "Input should be greater than 0"),
        ({"serving": {"engine": "vllm", "adapters": {"most": 2}}, "task": "text-generation"}, "vllm is for one model"),
        ({"serving": {"adapters": {"most": 2}}, "method": {"name": "ia3"}}, "method ia3 shares no base, as dora, lora"),
        ({"serving": {"adapters": {"most": 2}, "engine": "auto"}}, "engine: auto is for one model"),
        ({"serving": {"adapters": {"most": 2, "pinned": ["a", "b"]}}}, "2 are pinned: `most` must be larger"),
        ({"sweep": {"workers": 3}}, "no multiple of sweep.workers x training.micro_batch_size"),
        ({"training": {"precision": "fp16"}}, "training.precision: fp16 needs a GPU (scaling.use_gpu: true)"),
        ({"training": {"offload": "optimizer"}}, "training.offload: optimizer needs a GPU (scaling.use_gpu: true)"),
        (
            {"training": {"offload": "parameters", "zero_stage": 2}, "scaling": {"use_gpu": True}},
            "zero_stage 2: method lora in fp32 with offload: parameters goes with stage 3",
        ),
        (
            {"training": {"precision": "bf16", "zero_stage": 0}},
            "zero_stage 0: method lora in bf16 with offload: none goes with stage 1 to 3",
        ),
        ({"scaling": {"gpus_per_worker": 0.5}}, "gpus_per_worker: 0.5 goes with use_gpu: true"),
        ({"scaling": {"gpus_per_worker": 0.5, "use_gpu": True}}, "gpus_per_worker: 0.5 goes with workers: 1"),
        ({"scaling": {"gpus_per_worker": 2, "use_gpu": True, "workers": 1}}, "should be less than or equal to 1"),
        ({"serving": {"gpus": 1.5}}, "gpus: 1.5 is neither a share of one GPU nor several whole ones"),
        ({"serving": {"gpus": 1, "engine": "openvino"}}, "engine: openvino runs on CPUs; gpus: 0 goes with it"),
        ({"serving": {"vllm": {"tensor_parallel_size": 2}}}, "vllm.tensor_parallel_size: 2 goes with gpus: 2"),
        ({"method": {"name": "qlora"}}, "method.name: qlora needs a GPU (scaling.use_gpu: true)"),
        (
            {"method": {"name": "qlora"}, "scaling": {"use_gpu": True}, "training": {"offload": "parameters"}},
            "training.offload: parameters shards weights, which method qlora has whole",
        ),
        (
            {"method": {"name": "prompt-tuning"}, "training": {"zero_stage": 3}},
            "zero_stage 3: method prompt-tuning in fp32 with offload: none goes with stage 0 to 2",
        ),
        ({"method": {"name": "prefix-tuning"}}, "prefix-tuning is not supported; use prompt-tuning"),
        (
            {"task": "preference-tuning", "method": {"name": "full"}},
            "preference-tuning needs an adapter: what the model would say without it is the reference",
        ),
        (
            {"data": {"source": "a", "rejected": "worse"}},
            "data.rejected is for preference-tuning, text-classification learns from one answer",
        ),
        (
            {"data": {"source": "a", "packing": True}},
            "data.packing is for text-generation and its weights, not for text-classification with lora",
        ),
        ({"name": "Not A Name"}, "String should match pattern"),
        ({"training": {"learning_rate": float("nan")}}, "finite number"),
        ({"monitoring": {"looks": 1000}}, "false_alarm_rate / looks is 5e-05, below 0.0001: ask for fewer looks"),
    ],
)
def test_what_cannot_be_run_is_refused(part, said) -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(BASE | part)
    assert said in str(caught.value)


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Spec.model_validate(BASE).name = "y"


def test_values_are_set_by_dotted_key_and_validated_again() -> None:
    spec = Spec.model_validate(BASE)
    changed = spec.with_values({"training.learning_rate": 0.5, "method.rank": 4})
    assert (changed.training.learning_rate, changed.method.rank) == (0.5, 4)
    assert spec.training.learning_rate != 0.5
    with pytest.raises(ValidationError):
        spec.with_values({"scaling.workers": 3})


def test_the_hash_is_of_what_it_says() -> None:
    spec = Spec.model_validate(BASE)
    assert spec.hash == Spec.model_validate(BASE | {"task": "text-classification"}).hash
    assert spec.hash != spec.with_values({"training.seed": 1}).hash


def test_a_project_that_lies_elsewhere_has_the_same_hash() -> None:
    spec = Spec.model_validate(BASE)
    here, there = (
        spec.with_values({"data.source": f"{at}/data/train.csv", "base_model": f"{at}/model"})
        for at in ("/home/me/project", "/tmp/package")
    )
    assert here != there
    assert here.hash == there.hash
    assert here.hash != here.with_values({"data.source": "/home/me/project/data/other.csv"}).hash


def test_accumulation_follows_from_the_batches() -> None:
    spec = Spec.model_validate(BASE | {"training": {"global_batch_size": 128, "micro_batch_size": 16}})
    assert [spec.accumulation(workers) for workers in (1, 2, 3, 8)] == [8, 4, 3, 1]
