"""The command line. Parses, calls, prints; each command imports what it needs when it runs."""

from __future__ import annotations

import json as json_
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cluster.errors import DataError, GateRefusedError, NotFoundError, RehoneError, UserError
from cluster.settings import Settings

if TYPE_CHECKING:
    from cluster.store.storage import Storage
    from jobs.on_kubernetes import Manner
    from jobs.pipeline import Place
    from jobs.spec import Spec
    from serve.endpoint import Endpoint

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune on Ray, serve the winner, watch production, fine-tune again when it drifts.",
    epilog="Start with `rehone init`, or see everything at once with `rehone demo`. "
    "Exit codes: 0 done, 1 failed, 2 your mistake, 3 the gate refused.",
)

data_app = typer.Typer(no_args_is_help=True, help="The dataset versions that are kept: list, show, diff.")
app.add_typer(data_app, name="data")

keys_app = typer.Typer(no_args_is_help=True, help="API keys of servers with `serving.auth: keys`.")
app.add_typer(keys_app, name="keys")

jobs_app = typer.Typer(no_args_is_help=True, help="The jobs of a cluster: list, logs, stop, wait.")
app.add_typer(jobs_app, name="jobs")

cluster_app = typer.Typer(no_args_is_help=True, help="A cluster: start one here, end it, see how it is, what it lacks.")
app.add_typer(cluster_app, name="cluster")

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The project's YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the spec.")]
DataVersion = Annotated[str, typer.Argument(metavar="VERSION", help="NAME/VERSION, or the start of the version.")]
Corrections = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="CSV with row, input and label, as `rehone audit` writes it; mends labels."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[
    str | None, typer.Option(metavar="URL", help="Job API of a Ray cluster: run there as a job and follow it here.")
]
Where = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="URL", help="Job API of the cluster; RAY_API_SERVER_ADDRESS or the local one if not given."
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `rehone jobs list` shows it.")]
Takes = Annotated[
    str,
    typer.Option(
        "--resources", metavar="TEXT", help="With --address: what the verb itself takes, as cpus=1,gpus=0,memory=2GiB."
    ),
]
Image = Annotated[str | None, typer.Option(envvar="REHONE_IMAGE", help="The image, as k8s/ has it.")]
Namespace = Annotated[str, typer.Option(help="Where RayJobs go.")]
Queue = Annotated[str | None, typer.Option(help="Kueue's LocalQueue: start when all of it fits.")]
DataClaim = Annotated[str | None, typer.Option(help="PersistentVolumeClaim to mount at /data.")]
PodMemory = Annotated[str, typer.Option(help="Memory of a RayJob's head and of each worker.")]
Deadline = Annotated[int, typer.Option(metavar="SECONDS", help="Stop a RayJob that takes longer.")]
KubeContext = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]
Grow = Annotated[bool, typer.Option("--grow", help="Workers come as work waits for them, and go when idle.")]
Detach = Annotated[bool, typer.Option("--detach", help="With --address: submit, print the job's id and return.")]


@app.command(epilog="Example: `rehone init project.yaml`")
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("rehone.yaml"), *, json: Json = False
) -> None:
    """Write a spec to start from."""
    from jobs.template import TEMPLATE

    if path.exists():
        raise UserError("exists already", where=str(path), mend="name another file")
    path.write_text(TEMPLATE, encoding="utf-8")
    _answer({"written": str(path)}, json, f"wrote {path}; edit it, then `rehone check {path}`")


@app.command(epilog="Example: `rehone check examples/sentiment.yaml --set training.learning_rate=2e-4`")
def check(spec: SpecPath, set_: Set = None, *, json: Json = False) -> None:
    """Validate spec, data and base model. Starts nothing, writes nothing."""
    from jobs.data import preparation
    from jobs.forgetting import anchor
    from jobs.models import model

    loaded = _spec(spec, set_)
    rows = preparation.check(loaded)
    anchor.check(loaded)
    model.check(loaded)
    counts = {str(k): int(v) for k, v in rows["split"].value_counts().items()}
    said = ", ".join(f"{n} {name}" for name, n in counts.items())
    _answer(
        {"name": loaded.name, "hash": loaded.hash, "rows": counts}, json, f"{spec} is fine: {len(rows)} rows ({said})"
    )


@app.command(epilog="Example: `rehone plan examples/sentiment.yaml --set method.name=full`")
def plan(spec: SpecPath, set_: Set = None, *, json: Json = False) -> None:
    """Advice, memory by method and ZeRO stage, time and money, before anything runs. Starts nothing."""
    from jobs.plan import plan as plan_
    from jobs.plan import show

    made = plan_.make(_spec(spec, set_), Settings.from_environment())
    _answer(made, json, show.plan(made))
    if not made.fits:
        raise UserError("it does not fit", where=str(spec), mend=show.mend(made))


@app.command(epilog="Example: `rehone schema > rehone.schema.json`")
def schema(
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="A table for people instead.")] = False,
    json: Json = False,  # noqa: ARG001 - it is JSON unless it is Markdown
) -> None:
    """Print every key of the spec as JSON Schema, for editors."""
    from jobs import reference
    from jobs.spec import Spec

    print(reference.markdown() if markdown else json_.dumps(Spec.model_json_schema(), indent=2))


@app.command(epilog="Example: `rehone prepare examples/sentiment.yaml`")
def prepare(
    spec: SpecPath,
    set_: Set = None,
    address: Address = None,
    corrections: Corrections = None,
    resources: Takes = "",
    *,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Clean and split the data into a dataset version."""
    from jobs import pipeline, show

    set_ = _corrected(set_, corrections)
    loaded = _spec(spec, set_)
    if _sent("prepare", address, loaded, resources, detach=detach, json=json, spec=spec, overrides=set_):
        return
    made = pipeline.prepare(loaded, _place())
    _answer(made, json, show.dataset(made))


@app.command(epilog="Example: `rehone audit examples/sentiment.yaml`")
def audit(
    spec: SpecPath,
    set_: Set = None,
    address: Address = None,
    corrections: Corrections = None,
    resources: Takes = "",
    *,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Look for duplicates, leaks, wrong labels, outliers, personal data; write a report and the labels to check."""
    from jobs.audit import audit as audit_
    from jobs.audit import show
    from jobs.models import model

    set_ = _corrected(set_, corrections)
    loaded = _spec(spec, set_)
    model.check(loaded)
    if _sent("audit", address, loaded, resources, detach=detach, json=json, spec=spec, overrides=set_):
        return
    made = audit_.run(loaded, Settings.from_environment())
    _answer(made, json, show.audit(made))
    if made.leaks:
        raise DataError(f"{made.leaks} rows leak between splits", where=f"{made.place}/report.html")


@data_app.command("list", epilog="Example: `rehone data list sentiment`")
def data_list(
    name: Annotated[str | None, typer.Argument(help="One project; all of them when not given.")] = None,
    *,
    json: Json = False,
) -> None:
    """List dataset versions, oldest first."""
    from jobs.data import dataset, show

    found = dataset.versions(_storage(), name)
    _answer(found, json, show.versions(found))


@data_app.command("show", epilog="Example: `rehone data show sentiment/3f2a9c`")
def data_show(version: DataVersion, *, json: Json = False) -> None:
    """One version: rows, what was dropped, where it comes from, which runs used it, whether it is intact."""
    from jobs.data import lineage, show

    found = lineage.trace(version, Settings.from_environment())
    _answer(found, json, show.version(found))


@data_app.command("diff", epilog="Example: `rehone data diff sentiment/3f2a9c sentiment/81b0d4`")
def data_diff(
    before: DataVersion,
    after: DataVersion,
    *,
    rows: Annotated[int, typer.Option(min=0, help="Rows to print of each kind of change; JSON has all.")] = 5,
    json: Json = False,
) -> None:
    """Rows added, removed, relabelled and moved between two versions; labels and lengths side by side."""
    from jobs import tasks
    from jobs.data import compare, dataset, show

    storage = _storage()
    a, b = dataset.find(storage, before), dataset.find(storage, after)
    found = compare.compare(a.all_rows(storage), b.all_rows(storage), tasks.get(b.task))
    _answer(found, json, show.difference(a, b, found, rows))


@app.command(epilog="Example: `rehone tune examples/sentiment.yaml --set sweep.trials=8`")
def tune(
    spec: SpecPath,
    set_: Set = None,
    address: Address = None,
    resources: Takes = "",
    *,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Search hyperparameters with Ray Tune; `train --tuned` uses the winner."""
    from jobs import pipeline, show

    loaded, place = _checked(spec, set_), _place()
    if _sent("tune", address, loaded, resources, detach=detach, json=json, spec=spec, overrides=set_):
        return
    with _ray(loaded, place):
        _, swept = pipeline.tune_spec(loaded, pipeline.prepare(loaded, place), place)
    _answer(swept, json, show.sweep(swept))


@app.command(epilog="Example: `rehone train examples/sentiment.yaml --tuned`")
def train(
    spec: SpecPath,
    set_: Set = None,
    address: Address = None,
    corrections: Corrections = None,
    resources: Takes = "",
    *,
    detach: Detach = False,
    tuned: Annotated[bool, typer.Option("--tuned", help="With the values that the last sweep found best.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew even where the same training was cut off and could go on.")
    ] = False,
    json: Json = False,
) -> None:
    """Prepare, fine-tune, evaluate, register a challenger and let the gate judge it."""
    from jobs import pipeline
    from monitoring import promotion, show

    set_ = _corrected(set_, corrections)
    loaded, place = _checked(spec, set_), _place()
    if tuned:
        loaded = loaded.with_values(pipeline.tuned(loaded, place))
    more = [*(["--tuned"] if tuned else []), *(["--fresh"] if fresh else [])]
    if _sent("train", address, loaded, resources, *more, detach=detach, json=json, spec=spec, overrides=set_):
        return
    with _ray(loaded, place):
        dataset = pipeline.prepare(loaded, place)
        published = pipeline.train_and_publish(loaded, dataset, place, fresh=fresh)
    verdict = promotion.settle(loaded, place, published.version)
    result = {"version": published.version.version, "verdict": verdict, **published.evaluation.to_dict()}
    _answer(result, json, show.published(published, verdict))
    _refuse_unless(verdict)


@app.command(epilog="Example: `rehone register project.yaml ./adapter`")
def register(
    spec: SpecPath,
    model: Annotated[Path, typer.Argument(metavar="FOLDER", help="An adapter of PEFT's, or a model of transformers'.")],
    set_: Set = None,
    *,
    json: Json = False,
) -> None:
    """Take a model that was made elsewhere: evaluate it, register it as challenger and let the gate judge it."""
    from jobs import pipeline
    from monitoring import promotion, show

    loaded, place = _checked(spec, set_), _place()
    published = pipeline.publish_made(loaded, pipeline.prepare(loaded, place), place, model)
    verdict = promotion.settle(loaded, place, published.version)
    result = {"version": published.version.version, "verdict": verdict, **published.evaluation.to_dict()}
    _answer(result, json, show.published(published, verdict))
    _refuse_unless(verdict)


class Verb(StrEnum):
    """What can be sent to Kubernetes."""

    TRAIN = "train"
    TUNE = "tune"


@app.command(
    epilog="Example: `rehone submit train project.yaml --kubernetes --image registry.example.com/rehone:0.1.0-cpu`"
)
def submit(
    verb: Annotated[Verb, typer.Argument(help="What to run there.")],
    spec: SpecPath,
    set_: Set = None,
    image: Image = None,
    namespace: Namespace = "rehone-training",
    name: Annotated[str | None, typer.Option(help="Name of the RayJob; the same name twice is one job.")] = None,
    queue: Queue = None,
    data_claim: DataClaim = None,
    memory: PodMemory = "8Gi",
    deadline: Deadline = 86400,
    context: KubeContext = None,
    *,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="As a RayJob with a cluster of its own.")] = False,
    tuned: Annotated[bool, typer.Option("--tuned", help="train: with what the last sweep found best.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended; fails when it did not succeed.")] = False,
    grow: Grow = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifest and send nothing.")] = False,
    json: Json = False,
) -> None:
    """Run a verb on Kubernetes as a RayJob that the KubeRay operator carries out."""
    import yaml

    from cluster.console import say
    from cluster.errors import ClusterError
    from cluster.submission import kube, rayjob
    from jobs import on_kubernetes

    if not kubernetes:
        raise UserError("say where", mend=f"--kubernetes, or `rehone {verb} SPEC --address URL` for a running cluster")
    manner = _manner(image, namespace, queue, data_claim, memory, deadline, grow)
    loaded, more = _spec(spec, set_), ("--tuned",) if tuned else ()
    work = on_kubernetes.work(loaded, verb.value, manner, name or rayjob.new_name(loaded.name, verb), more=more)
    manifest = rayjob.rayjob(work)
    if dry_run:
        _answer(manifest, json, yaml.safe_dump(manifest, sort_keys=False))
        return
    api = kube.connect(context)
    created = kube.create(api, manifest)
    status = kube.wait(api, namespace, work.name, say) if wait else None
    result = {"name": work.name, "namespace": namespace, "created": created, "status": status}
    look = f"kubectl -n {namespace} get rayjob {work.name}"
    _answer(result, json, f"{work.name} {status or ('created' if created else 'is there already')}; {look}")
    if status not in {None, "SUCCEEDED"}:
        raise ClusterError(
            f"{work.name} ended {status}", where=namespace, mend=f"kubectl -n {namespace} logs job/{work.name}"
        )


def _manner(
    image: str | None, namespace: str, queue: str | None, claim: str | None, memory: str, deadline: int, grow: bool
) -> Manner:
    from jobs.on_kubernetes import Manner

    if image is None:
        raise UserError("no image is named", where="--image", mend="pass --image or set REHONE_IMAGE")
    return Manner(image, namespace, queue, claim, memory, deadline, grow)


@app.command(epilog="Example: `rehone evaluate examples/sentiment.yaml --model-version champion`")
def evaluate(
    spec: SpecPath,
    set_: Set = None,
    address: Address = None,
    model_version: Annotated[str, typer.Option(help="Number or alias of the version.")] = "champion",
    resources: Takes = "",
    *,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Score a version on the untouched test split of its dataset: metrics, slices, calibration, robustness, cost."""
    from jobs.data import dataset
    from jobs.evaluation import evaluate as evaluate_
    from jobs.evaluation import show
    from jobs.models.predictor import Predictor

    loaded, place = _spec(spec, set_), _place()
    more = ["--model-version", model_version]
    if _sent("evaluate", address, loaded, resources, *more, detach=detach, json=json, spec=spec, overrides=set_):
        return
    version = _version(place, loaded.name, model_version)
    data = dataset.read(place.storage, loaded.name, version.tags["dataset"])
    folder = place.registry.download(version)
    predictor = Predictor.load(folder)
    rows = evaluate_.answers(predictor, data, place.storage, loaded.evaluation)
    made = evaluate_.evaluate(rows, predictor, folder, data, loaded.evaluation)
    _answer({"version": version.version, **made.to_dict()}, json, show.evaluation(made))


@app.command(epilog="Example: `rehone card examples/sentiment.yaml --html card.html`")
def card(
    spec: SpecPath,
    set_: Set = None,
    model_version: Annotated[str, typer.Option(help="Number or alias of the version.")] = "champion",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page with its pictures too.")] = None,
    *,
    json: Json = False,
) -> None:
    """Print a version's model card: use, data, method, Scorecard, slices, verdict, lineage, carbon and cost."""
    from cluster.store.tracking import Tracker
    from jobs.card import card as card_
    from jobs.card import facts, page
    from monitoring import history

    loaded, place = _spec(spec, set_), _place()
    version = _version(place, loaded.name, model_version)
    folder, run = place.registry.download(version), Tracker(place.settings, loaded.name).open(version.run)
    known = facts.gather(folder, run, place.storage, place.settings, loaded.card)
    told = history.told(version, place)
    made = card_.make(known, told)
    if html is not None:
        page.write(html, card_.html(made, folder))
    _answer({"card": made.content, "facts": known, "told": told}, json, made.content)


@app.command(epilog="Example: `rehone reproduce sentiment 3`")
def reproduce(
    model: Annotated[str, typer.Argument(metavar="SPEC|NAME", help="The project's YAML file, or the model's name.")],
    version: Annotated[str, typer.Argument(help="Number or alias of the version.")],
    address: Address = None,
    resources: Takes = "",
    *,
    detach: Detach = False,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference of a figure that is let pass.")] = 0,
    json: Json = False,
) -> None:
    """Train a version again from its manifest, register nothing and say how far the figures differ."""
    from jobs.models import reproduce as reproduce_

    name = _spec(Path(model), None).name if Path(model).suffix in {".yaml", ".yml"} else model
    place = _place()
    wanted = _version(place, name, version)
    found = reproduce_.origin(place, wanted)
    more = [name, str(wanted.version), "--tolerance", str(tolerance)]
    if _sent("reproduce", address, found.spec, resources, *more, detach=detach, json=json):
        return
    with _ray(found.spec, place):
        made = reproduce_.reproduce(found, wanted, place, tolerance)
    _answer(made.to_dict(), json, reproduce_.shown(made))
    if not made.reproduced:
        raise RehoneError(f"differs by {made.largest:.3g}, more than {tolerance:g}", where=f"{name} {wanted.version}")


@app.command(epilog="Example: `rehone models sentiment`")
def models(
    name: Annotated[str | None, typer.Argument(help="One model; all of them when not given.")] = None,
    *,
    json: Json = False,
) -> None:
    """List registered versions and their aliases."""
    from jobs import show

    registry = _place().registry
    versions = [v for model in ([name] if name else registry.models()) for v in registry.versions(model)]
    _answer(versions, json, show.versions(versions))


@app.command(epilog="Example: `rehone promote sentiment 3`")
def promote(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[int, typer.Argument(help="The version to serve.")],
    *,
    json: Json = False,
) -> None:
    """Make a version champion, whatever the gate says, once a replica answers as its trainer did. Exit code 3 if not.

    Replicas swap to it within seconds.
    """
    from monitoring import promotion

    made = promotion.promote(name, version, _place())
    _answer(made, json, f"{name} version {made.version} is champion")


@app.command(epilog="Example: `rehone rollback sentiment`")
def rollback(name: Annotated[str, typer.Argument(help="The model.")], *, json: Json = False) -> None:
    """Make the previous champion champion again."""
    from monitoring import promotion

    made = promotion.roll_back(name, _place())
    _answer(made, json, f"{name} version {made.version} is champion again")


@app.command(epilog="Example: `rehone retire sentiment`")
def retire(name: Annotated[str, typer.Argument(help="The model.")], *, json: Json = False) -> None:
    """Take a model away from servers that answer for many; `rehone rollback` brings it back.

    Within seconds it is unknown there. A server that was started for this model answers until it is ended.
    """
    from monitoring import promotion

    made = promotion.retire(name, _place())
    _answer(made, json, f"{name} has no champion any more; it was version {made.version}")


@app.command(epilog="Example: `rehone serve examples/sentiment.yaml --watch`")
def serve(
    spec: SpecPath,
    set_: Set = None,
    port: Annotated[int | None, typer.Option(help="HTTP port instead of the spec's.")] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Watch for drift in the same process.")] = False,
    json: Json = False,
) -> None:
    """Serve the champion over HTTP until Ctrl-C; swaps to a new champion without a restart.

    With `serving.adapters.most` in the spec it answers for other models on the same base too, by their names.
    """
    from monitoring import controller, show

    loaded, place = _spec(spec, set_), _place()
    place.registry.champion(loaded.name)

    def ready(where: Endpoint) -> None:
        others = f", and what else there is for {where.kin}" if where.kin else ""
        text = f"serving {where.model}{others} at {where.url} (API at {where.url}/docs), jobs at {where.jobs}"
        text += "; Ctrl-C ends it"
        _answer(where, json, text)
        sys.stdout.flush()

    decided = (lambda d: print(show.decision(d), flush=True)) if watch else None
    with _ray(loaded, place, dashboard=True, serves=True, trains=watch) as address:
        controller.serve(loaded, place, address, port=port, ready=ready, decided=decided)


@app.command(epilog="Example: `rehone predict examples/sentiment.yaml 'what a day' 'never again'`")
def predict(
    spec: SpecPath,
    inputs: Annotated[list[str], typer.Argument(help="Texts to label; image files when the task reads images.")],
    url: Annotated[str | None, typer.Option(help="Base URL of the server; the running one when not given.")] = None,
    *,
    json: Json = False,
) -> None:
    """Ask the running server; where that asks for a key or a token, with the one in REHONE_API_KEY."""
    from serve import client, endpoint
    from serve.many import kin

    loaded, place = _spec(spec, None), _place()
    where = url or endpoint.find(place.storage, loaded.name, kin.of(loaded)).url
    with client.Client(where, loaded.name, key=client.key()) as asking:
        answer = asking.predict(_inputs(loaded, inputs))
    lines = [
        f"{p['label']:12} {p['confidence']:.3f}  {text}" for p, text in zip(answer["predictions"], inputs, strict=True)
    ]
    _answer(answer, json, "\n".join(lines))


@app.command(epilog="Example: `rehone explain examples/sentiment.yaml 'what a lovely day'`")
def explain(
    spec: SpecPath,
    inputs: Annotated[list[str] | None, typer.Argument(help="Texts to explain, or image files.")] = None,
    set_: Set = None,
    label: Annotated[str | None, typer.Option(help="The label to speak of; the predicted one when not given.")] = None,
    model_version: Annotated[str, typer.Option(help="Number or alias of the version.")] = "champion",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with what speaks for it in colour as well.")
    ] = None,
    check: Annotated[
        int | None,
        typer.Option(metavar="ROWS", min=1, help="Instead: are explanations of this many test rows true to the model?"),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Show which words, or which places of an image, speak for a label (integrated gradients). Needs no server."""
    from jobs.card import page
    from jobs.data import dataset
    from jobs.explain import faithfulness, highlight
    from jobs.models.predictor import Predictor

    if bool(inputs) == (check is not None):
        raise UserError("needs either inputs to explain or --check ROWS")
    loaded, place = _spec(spec, set_), _place()
    version = _version(place, loaded.name, model_version)
    model, steps = Predictor.load(place.registry.download(version)), loaded.serving.explain_steps
    if check is not None:
        data = dataset.read(place.storage, loaded.name, version.tags["dataset"])
        faithful = faithfulness.on_test_rows(model, data, place.storage, check, steps)
        _answer(faithful, json, highlight.faithfulness(faithful))
        return
    found = [model.explain(given, label, steps) for given in _inputs(loaded, inputs or [])]
    if html is not None:
        page.write(html, highlight.page(found))
    text = highlight.coloured(found) if sys.stdout.isatty() else highlight.plain(found)
    _answer({"version": version.version, "explanations": found}, json, text)


@app.command(epilog="Example: `rehone watch examples/sentiment.yaml --once --json`")
def watch(
    spec: SpecPath,
    set_: Set = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="Job API of the Ray cluster that retrainings run on.")
    ] = None,
    image: Image = None,
    namespace: Namespace = "rehone-training",
    queue: Queue = None,
    data_claim: DataClaim = None,
    memory: PodMemory = "8Gi",
    deadline: Deadline = 86400,
    context: KubeContext = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Judge what has come in and return (for a cron job).")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to the cluster, which keeps it running.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that was left to the cluster.")] = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Retrain in RayJobs, each with a cluster of its own.")
    ] = False,
    grow: Grow = False,
    json: Json = False,
) -> None:
    """Judge windows of the prediction log; retrain when the policy says so. One watch a model acts, others wait."""
    from monitoring import controller, launcher, show
    from serve import endpoint
    from serve.many import kin

    if once + detach + stop > 1:
        raise UserError("takes one of --once, --detach and --stop")
    loaded, place = _spec(spec, set_), _place()
    if kubernetes:
        if address or detach or stop:
            raise UserError("goes with none of --address, --detach and --stop", where="--kubernetes")
        from cluster.submission import kube

        manner = _manner(image, namespace, queue, data_claim, memory, deadline, grow)
        runs: launcher.Launcher = launcher.Kubernetes(loaded, kube.connect(context), manner)
    else:
        where = address or place.settings.address or endpoint.find(place.storage, loaded.name, kin.of(loaded)).jobs
        if where is None:
            raise UserError("no job API is known to retrain on", mend="pass --address, or --kubernetes")
        from cluster.submission.submit import Jobs

        if detach or stop:
            from monitoring import keeper

            (keeper.keep if detach else keeper.let_go)(loaded, place, where)
            said = "the cluster keeps the watch running" if detach else "the watch has ended"
            _answer({"model": loaded.name, "detached": detach}, json, said)
            return
        runs = launcher.StandingCluster(loaded, place, Jobs(where))
    if once:
        made = controller.watch_once(loaded, place, runs)
        _answer(made, json, "\n".join([*map(show.decision, made), f"{len(made)} window(s) judged"]))
        return
    controller.watch(loaded, place, runs, lambda d: _answer(d, json, show.decision(d)))


@app.command(epilog="Example: `rehone ui examples/sentiment.yaml --port 8100`")
def ui(
    spec: SpecPath,
    set_: Set = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8100,
    *,
    json: Json = False,
) -> None:
    """Show the whole loop on one page: quality, drift, decisions, versions, jobs; pause, approve, roll back there.

    With --json it prints what the page would show, and returns. The address holds a token, new each time unless
    REHONE_UI_TOKEN has one: whoever has it may act.
    """
    from monitoring.ui import overview, server

    loaded, place = _spec(spec, set_), _place()
    if json:
        _answer(overview.gather(loaded, place), json, "")
        return
    server.run(loaded, place, host, port)


@app.command(epilog="Example: `rehone pause examples/sentiment.yaml --why 'labels are being checked'`")
def pause(
    spec: SpecPath,
    set_: Set = None,
    why: Annotated[str, typer.Option(help="What people should know.")] = "",
    *,
    json: Json = False,
) -> None:
    """Keep the watch from retraining, promoting and rolling back by itself; it goes on looking."""
    from monitoring import hold
    from monitoring.journal import Journal

    made = hold.pause(Journal(_storage()), _spec(spec, set_).name, why)
    _answer(made, json, hold.said(made))


@app.command(epilog="Example: `rehone resume examples/sentiment.yaml`")
def resume(spec: SpecPath, set_: Set = None, *, json: Json = False) -> None:
    """End a pause: what waited goes on with the next window."""
    from monitoring import hold
    from monitoring.journal import Journal

    ended = hold.resume(Journal(_storage()), _spec(spec, set_).name)
    _answer({"ended": ended}, json, f"ended: {hold.said(ended)}" if ended else "was not paused")


@app.command(epilog="Example: `rehone drift last-month.parquet this-month.parquet`")
def drift(
    reference: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet.")],
    current: Annotated[Path, typer.Argument(help="The same columns, at another time.")],
    *,
    false_alarm_rate: Annotated[
        float, typer.Option(min=1e-4, max=0.5, help="Chance of any flag when nothing has changed.")
    ] = 0.05,
    json: Json = False,
) -> None:
    """Compare two files of rows, column by column and all together. No model is needed."""
    from monitoring.drift import files

    found = files.compared(reference, current, false_alarm_rate)
    _answer(found, json, files.told(found))


@app.command(epilog="Example: `rehone notify`, with REHONE_NOTIFY set to `mailtos://user:password@example.com`")
def notify(*, json: Json = False) -> None:
    """Send a test message through every channel in REHONE_NOTIFY, as the watch does of alarms and retrainings."""
    from datetime import UTC, datetime

    from cluster.errors import ClusterError
    from monitoring import notices

    urls = Settings.from_environment().notify
    if urls is None:
        raise UserError("no channel is given", where=notices.VARIABLE, mend="set it to Apprise URLs, parted by spaces")
    send = notices.channels(urls.get_secret_value())
    message = notices.Message(
        "test", datetime.now(UTC), "info", "rehone: a test", "Alarms and retrainings will come here."
    )
    if not send(message):
        raise ClusterError("a channel did not take the message", where=notices.VARIABLE, mend="see its reason above")
    _answer({"sent": message.title}, json, "sent")


@app.command(epilog="Example: `rehone retrain examples/sentiment.yaml`")
def retrain(
    spec: SpecPath,
    set_: Set = None,
    address: Address = None,
    resources: Takes = "",
    *,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Train on old data and labelled feedback now, judge, promote if better."""
    from monitoring import retrain as retrain_
    from monitoring import show

    loaded, place = _spec(spec, set_), _place()
    if _sent("retrain", address, loaded, resources, detach=detach, json=json, spec=spec, overrides=set_):
        return
    with _ray(loaded, place):
        made = retrain_.retrain(loaded, place)
    published = made.published
    result = {"version": published.version.version, "dataset": made.dataset.version, "verdict": made.verdict}
    result["forgetting"] = published.forgetting
    _answer(result, json, show.published(published, made.verdict))
    _refuse_unless(made.verdict)


@app.command(epilog="Example: `rehone status examples/sentiment.yaml`")
def status(spec: SpecPath, *, json: Json = False) -> None:
    """Champion, challenger, last windows and decisions, running jobs."""
    from monitoring import controller, show

    found = controller.status(_spec(spec, None), _place())
    _answer(found, json, show.status(found))


@jobs_app.command("list", epilog="Example: `rehone jobs list --address http://head:8265`")
def jobs_list(address: Where = None, *, json: Json = False) -> None:
    """List jobs, oldest first."""
    from cluster import show
    from cluster.sdk import Cluster

    found = Cluster(address).jobs()
    _answer(found, json, show.jobs(found))


@jobs_app.command("logs", epilog="Example: `rehone jobs logs -f rehone-train-3f2a9c01`")
def jobs_logs(
    job: JobId,
    address: Where = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended; its exit code is ours.")] = False,
    json: Json = False,
) -> None:
    """Print a job's log."""
    from cluster.sdk import Cluster
    from cluster.submission.follow import Follower, attend, raise_unless_succeeded

    found = Cluster(address).job(job)
    if not follow:
        log = found.logs()
        _answer({"submission_id": found.id, "log": log}, json, log.rstrip("\n"))
        return
    write = _to_stderr if json else _to_stdout
    ended = attend(Follower(found.cluster.api, found.id, write))
    if json:
        _answer(ended, json, "")
    raise_unless_succeeded(ended, found.cluster.address)


@jobs_app.command("stop", epilog="Example: `rehone jobs stop rehone-train-3f2a9c01`")
def jobs_stop(job: JobId, address: Where = None, *, json: Json = False) -> None:
    """End a job: it is asked to, and killed if it does not."""
    from cluster import show
    from cluster.sdk import Cluster

    found = Cluster(address).job(job)
    found.stop()
    ended = found.cluster.api.wait(found.id)
    _answer(ended, json, show.job(ended))


@jobs_app.command("wait", epilog="Example: `rehone jobs wait rehone-train-3f2a9c01 && rehone models`")
def jobs_wait(job: JobId, address: Where = None, *, json: Json = False) -> None:
    """Wait for a job's end; its exit code is ours."""
    from cluster import show
    from cluster.sdk import Cluster
    from cluster.submission.follow import raise_unless_succeeded

    found = Cluster(address).job(job)
    ended = found.follow(lambda _: None)
    _answer(ended, json, show.job(ended))
    raise_unless_succeeded(ended, found.cluster.address)


@cluster_app.command("up", epilog="Example: `rehone cluster up --cpus 8`")
def cluster_up(
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs; those of the machine when not given.")] = None,
    *,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let anybody in who reaches this machine.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Its processes show each other certificates, made here.")] = False,
    json: Json = False,
) -> None:
    """Start a cluster of one node on this machine that stays, with a token, and say how to use it."""
    from cluster import show
    from cluster.nodes import local

    made = local.up(Settings.from_environment(), cpus=cpus, token=not no_token, tls=tls)
    _answer(made, json, show.local(made))


@cluster_app.command("down", epilog="Example: `rehone cluster down`")
def cluster_down(*, json: Json = False) -> None:
    """End the cluster that `up` has started, with the jobs on it. No other cluster is touched."""
    from cluster.nodes import local

    ended = local.down(Settings.from_environment())
    _answer(ended, json, f"ended the cluster at {ended.address}")


@cluster_app.command("status", epilog="Example: `rehone cluster status`")
def cluster_status(address: Where = None, *, json: Json = False) -> None:
    """Where the cluster is and which jobs run on it."""
    from cluster import show
    from cluster.sdk import Cluster

    found = Cluster(address)
    running = [job for job in found.jobs() if not job.ended]
    text = f"{found.address} answers, {len(running)} job(s) running"
    _answer(
        {"address": found.address, "running": running}, json, "\n".join([text, *([show.jobs(running)] * bool(running))])
    )


@cluster_app.command("certificate", epilog="Example: `rehone cluster certificate worker-2 10.0.0.2 --out worker-2`")
def cluster_certificate(
    names: Annotated[list[str], typer.Argument(help="Names and addresses by which others reach the node.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write it; copy this to the node.")],
    *,
    json: Json = False,
) -> None:
    """Make a certificate for a node that is to join a cluster with TLS, of this machine's authority."""
    from cluster import show
    from cluster.nodes import certificates

    made = certificates.issue(names, out.resolve())
    _answer({"folder": made.folder, "environment": made.environment()}, json, show.certificate(made, names))


@cluster_app.command("doctor", epilog="Example: `rehone cluster doctor examples/sentiment.yaml`")
def cluster_doctor(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="What it wants is looked for too.")] = None,
    address: Where = None,
    *,
    json: Json = False,
) -> None:
    """Find what usually goes wrong and name the mend of each: exit code 1 when something is found."""
    from cluster import show
    from cluster.sdk import Cluster

    found = Cluster(address)
    findings = found.doctor(gpus=_spec(spec, None).gpus if spec else 0)
    _answer(findings, json, show.findings(findings, found.address))
    if findings:
        raise RehoneError(f"{len(findings)} finding(s)", where=found.address)


@app.command(
    epilog="Example: `rehone trace sentiment.3.06a1f0c2b7d4e51234abcd`, `rehone trace --dataset sentiment/3f2a9c`"
)
def trace(
    prediction_id: Annotated[str | None, typer.Argument(help="As /predict has answered with.")] = None,
    data: Annotated[str | None, typer.Option("--dataset", help="NAME/VERSION, a hash or the start of it.")] = None,
    *,
    json: Json = False,
) -> None:
    """What is behind one answer: version, run, code, spec, data, job, decision. With --dataset: what came of data."""
    from monitoring import show
    from monitoring import trace as trace_

    if (prediction_id is None) == (data is None):
        raise UserError("needs either a prediction id or --dataset")
    if prediction_id is not None:
        made = trace_.prediction(prediction_id, _place())
        before = trace_.parents(made.origin.parents)
        _answer(made, json, "\n\n".join(filter(None, [show.traced(made), before])))
    elif data is not None:
        found = trace_.uses(data, _place())
        _answer(found, json, show.uses(found))


@app.command(epilog="Example: `rehone predictions examples/sentiment.yaml --since 24h --wrong --min-confidence 0.9`")
def predictions(
    spec: SpecPath,
    set_: Set = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="2026-03-01, 2026-03-01T12:30, 24h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Answers before it.")] = None,
    version: Annotated[int | None, typer.Option(help="Of this version.")] = None,
    label: Annotated[str | None, typer.Option(help="With this predicted label.")] = None,
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="As sure as this at least.")] = None,
    max_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="As sure as this at most.")] = None,
    contains: Annotated[str | None, typer.Option(metavar="TEXT", help="With this in the input, to the letter.")] = None,
    id_: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Prediction ids.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The last so many; 50, and in a file all.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="NAME,...", help="Which columns, in which order.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them here, as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them here, as Parquet.")] = None,
    *,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Without a true label.")] = False,
    wrong: Annotated[bool, typer.Option("--wrong", help="Whose true label is another.")] = False,
    json: Json = False,
) -> None:
    """Ask the prediction log: which answers were given, with the true labels that came in."""
    from datetime import UTC, datetime

    from serve.log import log_query

    now, model = datetime.now(UTC), _spec(spec, set_).name
    query = log_query.Query(
        since=None if since is None else log_query.moment(since, now),
        until=None if until is None else log_query.moment(until, now),
        version=version,
        label=label,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        unlabelled=unlabelled,
        wrong=wrong,
        contains=contains,
        ids=tuple(id_ or ()),
    )
    file = log_query.target(csv, parquet)
    usual = log_query.PLAIN if json or file else log_query.SHOWN
    names = tuple(columns.split(",")) if columns else usual
    if file is not None:
        count = log_query.export(_storage(), model, query, names, file, limit)
        _answer({"file": str(file), "rows": count}, json, f"{count:,} answers are in {file}")
        return
    found = log_query.rows(_storage(), model, query, names, limit or 50)
    if json:
        _answer(found.to_pylist(), json, "")
        return
    from serve.log import show

    print(show.answers(found))


@app.command(
    epilog="Example: `rehone label examples/sentiment.yaml --out queue.csv`; once filled in, with `--answers queue.csv`"
)
def label(
    spec: SpecPath,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the queue, as CSV and as a page.")] = None,
    answers: Annotated[Path | None, typer.Option(metavar="FILE", help="Take the labels of a filled queue.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="With --out: how many rows to choose.")] = 200,
    latest: Annotated[int, typer.Option(min=1, help="With --out: choose among as many of the last answers.")] = 5000,
    *,
    json: Json = False,
) -> None:
    """Choose the logged answers most worth a true label, and take the labels that people gave."""
    from monitoring.labels import queue as labels

    if (out is None) == (answers is None):
        raise UserError("needs either --out or --answers")
    loaded, place = _spec(spec, set_), _place()
    if out is not None:
        made = labels.queue(loaded, place, out, rows, latest)
        _answer(made, json, labels.queued(made))
    elif answers is not None:
        taken = labels.answer(loaded, place, answers)
        _answer(taken, json, labels.taken(taken))


@app.command(
    epilog="Example: `rehone backtest examples/sentiment.yaml --every 3 "
    '--policy "eager: monitoring.consecutive=1, monitoring.min_labels=100" --picture backtest.png`'
)
def backtest(
    spec: SpecPath,
    set_: Set = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME: KEY=VALUE, ...", help="Another policy: the spec's with monitoring keys changed."),
    ] = None,
    every: Annotated[
        list[int] | None, typer.Option(min=2, metavar="N", help="Another policy: retrain after every N windows.")
    ] = None,
    label_delay: Annotated[int, typer.Option(min=0, help="Windows after which a row's label is known.")] = 1,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw accuracy against cost, as PNG.")] = None,
    *,
    json: Json = False,
) -> None:
    """Replay the prediction log under several policies: what accuracy each would have had, at what cost of retraining.

    Never, every window, every N, the spec's and variants. Each retraining is played by a logistic regression on
    frozen embeddings: it ranks policies, a fine-tuned model's accuracies are others.
    """
    from monitoring.backtest import backtest as backtest_
    from monitoring.backtest import frontier, variants

    loaded = _spec(spec, set_)
    given = variants.policies(loaded, every or [], policy or [])
    made = backtest_.run(loaded, _place(), given, label_delay)
    if picture is not None:
        frontier.draw(made, picture)
    _answer(made, json, frontier.table(made))


@keys_app.command("create", epilog="Example: `rehone keys create 'the web shop' --model sentiment --days 90`")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose it is: it is in the access log.")],
    *,
    model: Annotated[list[str] | None, typer.Option(help="A model it may ask; all when not given.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="How long it is good; for ever when not given.")] = None,
    json: Json = False,
) -> None:
    """Make a key and show it, this once. Servers that run know it at once."""
    from serve.http import callers

    key, secret = callers.create(_storage(), name, tuple(model or ()), days)
    _answer({"id": key.id, "name": key.name, "key": secret}, json, f"{secret}\nkept as {key.id}; it is not shown again")


@keys_app.command("list", epilog="Example: `rehone keys list --json`")
def keys_list(*, json: Json = False) -> None:
    """Keys by id, without what is secret of them."""
    from jobs import show
    from serve.http import callers

    found = [{n: v for n, v in key.to_dict().items() if n != "digest"} for key in callers.listed(_storage())]
    head = ["id", "name", "models", "created", "expires"]
    rows = [
        [k["id"], k["name"], ", ".join(k["models"]) or "all", k["created"][:19], (k["expires"] or "never")[:19]]
        for k in found
    ]
    _answer(found, json, show.table("", head, rows) if found else "no keys")


@keys_app.command("revoke", epilog="Example: `rehone keys revoke 3f2a9c81b0d4`")
def keys_revoke(key: Annotated[str, typer.Argument(help="Its id.")], *, json: Json = False) -> None:
    """Make a key worthless. Servers that run refuse it within `serving.poll_seconds`."""
    from serve.http import callers

    gone = callers.revoke(_storage(), key)
    _answer({"id": gone.id, "name": gone.name}, json, f"{gone.name}: revoked")


@app.command(epilog="Example: `rehone tidy --keep-days 90`, once a day")
def tidy(
    *,
    keep_days: Annotated[
        float | None,
        typer.Option(min=0, help="Delete answers and reports older than that; labels and the journal stay."),
    ] = None,
    json: Json = False,
) -> None:
    """Make few large files of the many small ones that servers write, and delete what is old. What runs may go on."""
    from datetime import UTC, datetime

    from monitoring import upkeep

    made = upkeep.tidy(_storage(), datetime.now(UTC), keep_days)
    _answer(made, json, upkeep.told(made))


@app.command(epilog="Example: `rehone backup /mnt/backups/rehone-2026-03-01.tar.gz`")
def backup(file: Annotated[Path, typer.Argument(help="A new .tar.gz file.")], *, json: Json = False) -> None:
    """Write the whole storage root to one file: versions, datasets, logs, journal. What runs may go on."""
    from cluster.store import backup as backup_

    made = backup_.backup(Settings.from_environment(), file)
    _answer(made, json, f"{made.files} files of {made.root} are in {made.file} ({made.bytes / 1e6:.1f} MB)")


@app.command(epilog="Example: `rehone restore /mnt/backups/rehone-2026-03-01.tar.gz`")
def restore(file: Annotated[Path, typer.Argument(help="What `rehone backup` wrote.")], *, json: Json = False) -> None:
    """Put a backup back where its storage root was. Overwrites nothing."""
    from cluster.store import backup as backup_

    made = backup_.restore(Settings.from_environment(), file)
    _answer(made, json, f"{made.files} files are in {made.root}, as they were at {made.at[:19]} UTC")


@app.command(epilog="Example: `rehone demo`")
def demo(set_: Set = None, *, json: Json = False) -> None:
    """The whole loop on real data: train, serve, drift, retrain, promote."""
    from examples import demo as demo_

    summary = demo_.run(Settings.from_environment(), set_ or [])
    _answer(summary, json, demo_.table(summary))


def main() -> NoReturn:
    """Entry point: errors of ours become one line and their exit code; a bug keeps its traceback."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a user cannot mend a library's deprecations; `python -W` shows them
    try:
        app()
    except RehoneError as error:
        print(f"rehone: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def _spec(path: Path, overrides: list[str] | None) -> Spec:
    from jobs import specfile

    return specfile.load(path, overrides or [])


def _corrected(overrides: list[str] | None, corrections: Path | None) -> list[str]:
    """The overrides with the file of corrections among them, as YAML reads it from wherever the spec lies."""
    if corrections is None:
        return overrides or []
    return [*(overrides or []), f"data.corrections={json_.dumps(str(corrections.resolve()))}"]


def _checked(path: Path, overrides: list[str] | None) -> Spec:
    """Spec, data and base model validated before Ray starts."""
    from jobs.data import preparation
    from jobs.forgetting import anchor
    from jobs.models import model

    spec = _spec(path, overrides)
    preparation.check(spec)
    anchor.check(spec)
    model.check(spec)
    return spec


def _place() -> Place:
    from jobs.pipeline import Place

    return Place.from_settings(Settings.from_environment())


def _storage() -> Storage:
    from cluster.store.storage import Storage

    return Storage.from_settings(Settings.from_environment())


def _ray(spec: Spec, place: Place, *, dashboard: bool = False, serves: bool = False, trains: bool = True) -> Any:
    from cluster.session import connect
    from jobs.pipeline import cpus

    wanted = {"serving.gpus": serves and spec.serving.gpus, "scaling.use_gpu": trains and spec.scaling.use_gpu}
    gpu = next((key for key, value in wanted.items() if value), "")
    return connect(place.settings, num_cpus=cpus(spec), dashboard=dashboard, gpu=gpu)


def _version(place: Place, model: str, name: str) -> Any:
    found = place.registry.get(model, int(name)) if name.isdigit() else place.registry.find(model, name)
    if found is None:
        raise NotFoundError(f"model {model!r} has no {name!r}", mend="see `rehone models`")
    return found


def _sent(
    verb: str,
    address: str | None,
    loaded: Spec,
    resources: str,
    *arguments: str,
    detach: bool,
    json: bool,
    spec: Path | None = None,
    overrides: list[str] | None = None,
) -> bool:
    """Whether the verb ran as a job at the address given, or else the environment's. Raises JobFailedError."""
    from cluster.submission import remote
    from cluster.submission.submit import Resources
    from jobs.models.provenance import code_version

    settings = Settings.from_environment()
    where = address or remote.address(settings)
    if where is None:
        return False
    known = {"model": loaded.name, "spec": loaded.hash, "code": code_version()}
    request = remote.Request(verb, spec, tuple(overrides or ()), arguments, Resources.parse(resources), known)
    made = remote.run(request, where, settings, detach=detach, json=json)
    if json:
        _answer(made, json, "")
    return True


def _inputs(spec: Spec, given: list[str]) -> list[str]:
    """What was typed, as the task keeps it: a text as it is, an image from its file. Raises UserError."""
    from jobs import tasks

    made = []
    for one in given:
        try:
            made.append(tasks.get(spec.task).inputs.read(one, Path()))
        except ValueError as error:
            raise UserError(str(error), where=one[:80]) from None
    return made


def _answer(value: Any, json: bool, text: str) -> None:
    from pydantic_core import to_json

    print(to_json(value, indent=2).decode() if json else text)


def _to_stdout(text: str) -> None:
    print(text, end="", flush=True)


def _to_stderr(text: str) -> None:
    print(text, end="", flush=True, file=sys.stderr)


def _refuse_unless(verdict: Any) -> None:
    if not verdict.promote:
        raise GateRefusedError("; ".join(verdict.reasons))


if __name__ == "__main__":
    main()
