"""Texts by what plays vLLM (`vllm_fake.py`: it writes each prompt again), and by vLLM itself where there is one."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import ClusterError
from jobs import tasks
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.spec import MethodSpec, VllmSpec
from jobs.tasks import writing as texts
from jobs.tasks.task import Piece, Sampling
from serve.engines import child, choice, engine, likely, parity, writer
from serve.engines.batching import Batcher
from serve.engines.engine import Answered, Engine
from serve.engines.writer import Writer
from serve.versions.certificate import Measured
from tests.jobs.tasks import projects

from . import fakes, writing
from .test_child import eventually, gone

INPUTS = writing.INPUTS
GOLDEN = parity.Golden(INPUTS, ["North Chicago"] * len(INPUTS), [[]] * len(INPUTS))
OWN = Path(__file__).parents[2] / ".vllm"  # `make vllm`


@pytest.fixture(autouse=True)
def _measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_REPEATS", 1)


@pytest.fixture
def echo(vllm: Path, plain: Predictor, tmp_path: Path) -> Writer:
    del vllm
    return writer.open_(plain, writer.whole(plain, tmp_path / "whole"), VllmSpec(), GOLDEN)


def asked(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "whole" / "asked.jsonl").read_text().splitlines()]


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_batch_is_one_request_and_its_outputs_are_as_pytorchs(echo: Writer, plain: Predictor, tmp_path: Path) -> None:
    made, theirs, prompts = echo(INPUTS), plain(INPUTS), plain.prompts(INPUTS)
    (sent,) = asked(tmp_path)
    assert sent["prompt"] == prompts
    assert {name: sent[name] for name in ("max_tokens", "temperature", "top_p", "stop_token_ids", "ignore_eos")} == {
        "max_tokens": 12, "temperature": 0.0, "top_p": 1.0, "stop_token_ids": [3], "ignore_eos": True,
    }  # fmt: skip
    for output, other, prompt in zip(made, theirs, prompts, strict=True):
        assert output.label == plain.tokenizer.decode(prompt[:12], skip_special_tokens=True).strip()
        assert output.confidence == pytest.approx(0.5 ** min(12, len(prompt)))
        torch.testing.assert_close(output.embedding, other.embedding, atol=1e-4, rtol=1e-4)
    assert echo.labels == plain.labels
    assert echo.fault("any text") == plain.fault("any text")


def test_a_text_comes_in_pieces_and_ends_as_it_is_asked_to(echo: Writer, plain: Predictor, tmp_path: Path) -> None:
    whole = list(echo.write(INPUTS[1], Sampling(100)))
    (prompt,) = plain.prompts([INPUTS[1]])
    assert len(prompt) < 11
    assert (whole[-1].ended, whole[-1].read, whole[-1].written) == ("stop", len(prompt), len(prompt))
    output = whole[-1].output
    assert output is not None
    assert output.label == text(whole).strip() == plain.tokenizer.decode(prompt, skip_special_tokens=True)
    assert writing.same(output, echo([INPUTS[1]])[0])
    short = list(echo.write(INPUTS[1], Sampling(2, 0.7, 0.9, 5)))
    assert (short[-1].ended, short[-1].written) == ("length", 2)
    stopped = list(echo.write(INPUTS[1], Sampling(100, stop=("ave",))))
    assert (stopped[-1].ended, text(stopped).strip()) == ("stop", "5th")
    sent = asked(tmp_path)
    assert [one["max_tokens"] for one in sent] == [12, 12, 2, 12], "never more than the spec allows"
    assert [sent[2][name] for name in ("temperature", "top_p", "seed")] == [0.7, 0.9, 5]


def test_texts_and_batches_are_written_at_once(echo: Writer) -> None:
    served = Engine(fakes.version(1), echo)
    with ThreadPoolExecutor(2) as threads:
        # Neither goes on before both are being written.
        made = list(threads.map(lambda given: list(served.write(given, Sampling(12, seed=2))), INPUTS[:2]))
    assert all(pieces[-1].ended for pieces in made)
    begun = served.write(INPUTS[0], Sampling(12))
    next(begun)
    assert len(served.answer(INPUTS).outputs) == len(INPUTS), "while a text is being written"
    assert list(begun)[-1].ended


async def asked_of(served: Engine, clients: int) -> list[Answered]:
    """An input each, all at the same time."""
    batcher = Batcher("test", 8)
    answer = batcher.lane(lambda: served)
    made = await asyncio.gather(*(answer([INPUTS[at % 4]]) for at in range(clients)))
    await asyncio.to_thread(batcher.stop)
    return list(made)


def test_a_model_with_fewer_positions_than_the_spec_asks_for_is_refused_in_one_line(
    plain: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain.net.config, "max_position_embeddings", 10)
    wanted = rf"vLLM reads 10 tokens of this model, .* are {plain.bounds.input + plain.bounds.answer}"
    with pytest.raises(ClusterError, match=wanted):
        writer.open_(plain, tmp_path, VllmSpec(), GOLDEN)


def test_requests_of_many_clients_are_gathered_for_vllm(echo: Writer) -> None:
    made = asyncio.run(asked_of(Engine(fakes.version(1), echo), 20))
    alone = echo(INPUTS)
    assert all(writing.same(one.outputs[0], alone[at % 4]) for at, one in enumerate(made))
    assert 2 < max(one.batch_rows for one in made) <= 8


def test_prompts_that_wait_are_read_together_and_a_fault_is_told_to_who_waited() -> None:
    calls, begun, let = list[int](), threading.Event(), threading.Event()

    def embedded(prompts: Sequence[Sequence[int]]) -> writer.Embeddings:
        calls.append(len(prompts))
        begun.set()
        assert let.wait(30)
        if [13] in prompts:
            raise ValueError("unlucky")
        return [np.full(1, prompt[0], np.float32) for prompt in prompts]

    reader = writer.Reader(embedded)
    first = reader.read([[1]])
    assert begun.wait(30)
    others = [reader.read([[2], [3]]), reader.read([[4]])]
    let.set()
    assert [[float(one[0]) for one in asked.result(30)] for asked in (first, *others)] == [[1], [2, 3], [4]]
    assert calls == [1, 3]
    with pytest.raises(ValueError, match="unlucky"):
        reader.read([[13]]).result(30)
    assert reader.read([[5]]).result(30) == [np.full(1, 5, np.float32)]


def test_a_dead_one_fails_what_it_was_asked_and_its_replica(echo: Writer) -> None:
    pieces = echo.write(INPUTS[0], Sampling(12, seed=13))
    next(pieces)
    with pytest.raises(ClusterError, match="vLLM ended with 3: ValueError: unlucky"):
        list(pieces)
    with pytest.raises(ClusterError, match="vLLM ended with 3"):
        echo.ready()


def test_a_version_is_admitted_if_its_texts_are_the_trainers(
    vllm: Path, version: Path, plain: Predictor, tmp_path: Path
) -> None:
    kept, own = tmp_path / "kept", shutil.copytree(version, tmp_path / "own")
    with pytest.raises(ClusterError, match=r"engine vllm: answers the golden inputs 1 away from the trainer \(allo"):
        choice.loader("vllm", kept)(own)
    writing.golden(own, writer.open_(plain, writer.whole(plain, tmp_path / "echo"), VllmSpec(), GOLDEN)(INPUTS))
    made = engine.load(fakes.version(1), own, choice.loader("vllm", kept))
    assert made.predictor.engine == "vllm"
    place = choice._place(kept, own)
    assert {path.name for path in place.iterdir()} == {"whole", f"measured-{torch.get_num_threads()}.json"}
    assert [one.engine for one in choice.measured(kept, own)] == ["vllm"]
    assert not gone(place / "whole")
    del made
    gc.collect()
    assert eventually(lambda: gone(place / "whole")), "with the version that nobody holds any more"
    vllm.unlink()
    with pytest.raises(ClusterError, match=r"serving\.engine vllm: REHONE_VLLM names"):
        choice.loader("vllm", kept)(own)


@pytest.mark.usefixtures("vllm")
def test_in_half_precision_the_trainers_texts_must_be_as_likely(
    version: Path, plain: Predictor, tmp_path: Path
) -> None:
    kept, how = tmp_path / "kept", VllmSpec(dtype="bfloat16")
    place = choice._place(kept, version) / "whole"
    writer.whole(plain, place)
    golden = parity.golden(version)
    answers = likely.Answers.of(plain, golden)
    rows, own = answers.rows, answers.apart(likely.rounded(plain.net, answers.rows, "bfloat16"))
    assert max(map(len, rows)) < plain.bounds.input + plain.bounds.answer
    assert 0.001 < own < 0.1

    def off(by: float) -> None:
        known = {str(row): [chance - by for chance in texts.chances(plain.net, row)] for row in rows}
        (place / "chances.json").write_text(json.dumps(known))

    off(4 * own)
    wanted = rf"vllm-bfloat16: cannot be started: finds a token .* {4 * own:.2g} .* trainer, {3 * own:.2g} allowed"
    with pytest.raises(ClusterError, match=wanted):
        choice.loader("vllm", kept, how)(version)
    off(2 * own)
    made = engine.load(fakes.version(1), version, choice.loader("vllm", kept, how))
    assert made.predictor.engine == "vllm-bfloat16"
    (measured,) = choice.measured(kept, version)
    assert (measured.engine, measured.apart, measured.fault) == ("vllm-bfloat16", 1.0, ""), "it writes others"
    # What was measured in one precision says nothing of another.
    with pytest.raises(ClusterError, match="engine vllm: answers the golden inputs 1 away"):
        choice.loader("vllm", kept)(version)


@pytest.mark.usefixtures("vllm")
def test_auto_measures_vllm_on_a_gpu_and_takes_it_if_it_agrees(
    version: Path, plain: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choice._wanted("auto", plain) == ["torch"], "on a CPU"
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert choice._wanted("auto", plain) == ["torch", "vllm"]
        patch.setenv(child.VARIABLE, "/nowhere/vllm")
        assert choice._wanted("auto", plain) == ["torch"]
    monkeypatch.setattr(choice, "_worth_it", lambda _: True)
    own, kept = shutil.copytree(version, tmp_path / "own"), tmp_path / "kept"
    assert choice.loader("auto", kept)(own).engine == "torch"
    first, second = choice.measured(kept, own)
    assert (first.engine, first.fault, second.engine) == ("torch", "", "vllm")
    assert second.fault.startswith("answers the golden inputs 1 away")
    assert choice.fastest([Measured("torch", 0.5, 0.0), Measured("vllm", 0.1, 0.0)]) == "vllm"


def test_what_transformers_takes_for_granted_of_a_whole_answer_is_asked_for(
    echo: Writer, plain: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain.net.generation_config, "repetition_penalty", 1.3)
    echo(INPUTS[:1])
    list(echo.write(INPUTS[0], Sampling(3)))
    batch, one = asked(tmp_path)
    assert (batch["repetition_penalty"], one.get("repetition_penalty")) == (1.3, None)


def test_adapters_are_merged_in_what_vllm_reads(version: Path, tmp_path: Path) -> None:
    task, manifest = tasks.get("text-generation"), json.loads((version / "manifest.json").read_text())
    net = model.with_adapter(model.base(task, manifest["base_model"], (), 0), MethodSpec(name="lora"), task)
    with torch.no_grad():
        for name, part in net.named_parameters():
            if "lora_B" in name:
                part.fill_(0.1)
    own = tmp_path / "own"
    shutil.copytree(version, own, ignore=shutil.ignore_patterns("weights"))
    model.save(net, None, own)
    read = task.auto().from_pretrained(writer.whole(Predictor.load(own), tmp_path / "whole")).state_dict()
    before = task.auto().from_pretrained(version / "weights").state_dict()
    assert read.keys() == before.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    layer = net.get_submodule(f"base_model.model.{name.removesuffix('.weight')}")
    torch.testing.assert_close(read[name], before[name] + layer.get_delta_weight("default"))
    torch.testing.assert_close(read["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_a_token_takes_a_key_and_a_value_a_layer_and_head(plain: Predictor) -> None:
    config = plain.net.config
    assert writer.token_bytes(config, 4) == 2 * 4 * config.num_hidden_layers * config.hidden_size
    config = type(config)(hidden_size=96, num_attention_heads=6, num_key_value_heads=2, num_hidden_layers=3)
    assert writer.token_bytes(config, 2) == 2 * 2 * 3 * 2 * 16


def test_only_whole_causal_models_go(
    plain: Predictor, version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain.follows_on
    projects.t5(tmp_path)
    task = tasks.get("text2text-generation")
    other = Predictor(model.base(task, str(tmp_path), (), 0), task, task.processor(tmp_path), (), plain.bounds)
    assert not other.follows_on
    monkeypatch.setattr(Predictor, "follows_on", False)
    with pytest.raises(ClusterError, match="engine vllm is for whole causal models that write texts"):
        choice.loader("vllm", tmp_path / "kept")(version)


@pytest.fixture
def _real(monkeypatch: pytest.MonkeyPatch) -> None:
    if child.found() is None:
        if not (OWN / ".ready").exists():
            pytest.skip("no vllm: neither REHONE_VLLM nor the PATH names one, and `make vllm` has not made one")
        monkeypatch.setenv(child.VARIABLE, str(OWN / "bin" / "vllm"))


@pytest.mark.slow
@pytest.mark.usefixtures("_real")
def test_vllm_itself_answers_as_its_trainer_and_writes_two_texts_at_once(
    version: Path, plain: Predictor, tmp_path: Path
) -> None:
    served = engine.load(fakes.version(1), version, choice.loader("vllm", tmp_path / "kept"))
    assert served.predictor.engine == "vllm"
    outputs = served.answer(INPUTS).outputs
    assert all(writing.same(*pair) for pair in zip(outputs, plain(INPUTS), strict=True))
    for sampling in (Sampling(12), Sampling(5), Sampling(12, stop=(outputs[0].label.split()[2],))):
        with ThreadPoolExecutor(2) as threads:
            both = list(threads.map(lambda given, how=sampling: list(served.write(given, how)), INPUTS[:2]))
        for given, pieces in zip(INPUTS[:2], both, strict=True):
            theirs = list(plain.write(given, sampling))
            assert [(one.text, one.read, one.written, one.ended) for one in pieces] == [
                (one.text, one.read, one.written, one.ended) for one in theirs
            ]
            assert writing.same(pieces[-1].output, theirs[-1].output)
    drawn = [text(list(served.write(INPUTS[0], Sampling(12, 1.0, 0.9, seed)))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    begun = [served.write(given, Sampling(12)) for given in INPUTS[:2]]
    assert [next(pieces).ended for pieces in begun] == [None, None], "the second has begun before the first has ended"
    made = asyncio.run(asked_of(served, 12))
    assert all(writing.same(one.outputs[0], outputs[at % 4]) for at, one in enumerate(made))
    assert max(one.batch_rows for one in made) > 2


@pytest.mark.slow
@pytest.mark.usefixtures("_real")
def test_vllm_itself_in_half_precision_finds_the_trainers_texts_as_likely(version: Path, tmp_path: Path) -> None:
    how = VllmSpec(dtype="bfloat16", max_model_len=128, gpu_memory_utilization=0.2)
    served = engine.load(fakes.version(1), version, choice.loader("vllm", tmp_path / "kept", how))
    assert served.predictor.engine == "vllm-bfloat16"
    assert len(served.answer(INPUTS).outputs) == len(INPUTS)
    # Weights that are not the trainer's are found out.
    plain = Predictor.load(version)
    with torch.no_grad():
        plain.net.model.layers[0].mlp.up_proj.weight.mul_(0.5)
    with pytest.raises(ClusterError, match="finds a token of the golden answers"):
        writer.open_(plain, choice._place(tmp_path / "kept", version) / "whole", how, parity.golden(version))
