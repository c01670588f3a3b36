"""Acting on the gate's verdict: move the alias or dismiss the challenger, and write both to the journal."""

from __future__ import annotations

import json
import time

import pandas as pd

from cluster.console import say
from cluster.errors import GateRefusedError
from cluster.store.registry import CHALLENGER, CHAMPION, ModelVersion
from cluster.store.tracking import Tracker
from jobs import tasks
from jobs.evaluation import footprint
from jobs.models import manifest
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.spec import Spec
from serve.versions import examine

from . import hold, trial
from .journal import AWAITS, BEGUN, DONE, EVALUATED, PAUSE, PROMOTION, RETIREMENT, ROLLBACK, VERDICT, Journal
from .judges import gate
from .judges.gate import Verdict
from .trial import Court

_VERDICT = "verdict"  # the tag


def settle(spec: Spec, place: Place, challenger: ModelVersion) -> Verdict:
    """Judge a challenger against the champion on the same holdout, the one it was published with, and act.

    With a share for canaries in the spec, one that passes goes on trial beside the champion before it takes its place.

    One that passes stays a challenger where a person has to approve it, or while the model is paused; once it is not,
    the watch calls this again.

    Killed anywhere and called again it goes on: a verdict that is in the journal stands.
    """
    key, journal = str(challenger.version), Journal(place.storage)
    journal.write(spec.name, EVALUATED, DONE, key, {"version": challenger.version, "run": challenger.run})
    known = [entry for entry in journal.entries(spec.name, VERDICT) if entry.key == key]
    if known:
        verdict = Verdict.from_dict(known[-1].body)
    else:
        verdict = _judged(spec, place, place.registry.find(spec.name, CHAMPION), challenger)
        journal.write(spec.name, VERDICT, DONE, key, verdict.to_dict())
    _note(spec, place, challenger, verdict)
    champion = place.registry.find(spec.name, CHAMPION)
    held = waits(spec, journal)
    if not verdict.promote:
        place.registry.dismiss(spec.name)
    elif held:
        journal.write(spec.name, AWAITS, DONE, key, {"version": challenger.version, "why": held})
        say(f"version {challenger.version} passed and waits: {held}; `rehone promote {spec.name} {key}` lets it serve")
    elif spec.serving.canary.share and champion is not None and champion.version != challenger.version:
        trial.begin(court(spec, place), challenger.version, champion.version)
    else:
        promote(spec.name, challenger.version, place, f"{key}-settled")
    return verdict


def waits(spec: Spec, journal: Journal) -> str:
    """Why a version that has passed is not promoted by itself; "" where it is."""
    held = hold.paused(journal.entries(spec.name, PAUSE))
    if held is not None:
        return hold.said(held)
    return "monitoring.approval wants a person's word" if spec.monitoring.approval else ""


def court(spec: Spec, place: Place) -> Court:
    """Where trials of this model are held."""

    def up(version: int, key: str) -> object:
        return promote(spec.name, version, place, key)

    return Court(spec.name, spec.serving.canary, place.storage, place.registry, Journal(place.storage), up)


def finish(spec: Spec, place: Place, job: str) -> Verdict | None:
    """Settle the challenger that a job published and left when it was killed; None when it left none."""
    journal = Journal(place.storage)
    for entry in journal.unfinished(spec.name, PROMOTION):
        champion = place.registry.find(spec.name, CHAMPION)
        if champion is not None and champion.version == entry.body["version"]:
            journal.write(spec.name, PROMOTION, DONE, entry.key, entry.body)
    left = [v for v in place.registry.versions(spec.name) if CHALLENGER in v.aliases or _VERDICT not in v.tags]
    made = [version for version in left if manifest.of(place.registry, version)["job"] == job]
    return settle(spec, place, made[-1]) if made else None


def promote(model: str, version: int, place: Place, key: str | None = None) -> ModelVersion:
    """Make a version champion. The same `key` again is the same act. Raises NotFoundError.

    Without a key it is a person's act, and a replica has to answer as the version first, as it had to when the gate
    judged it: raises GateRefusedError where that disagrees with the trainer, ClusterError where it does not answer.
    """
    if key is None:
        _certify(place, place.registry.get(model, version))
    return _move(place, PROMOTION, model, version, key)


def _certify(place: Place, version: ModelVersion) -> None:
    """By the engine of the version's own spec, where no replica has one."""
    spec = manifest.spec(manifest.of(place.registry, version))
    examine.certify(place, version, spec.serving.engine, spec.serving.vllm)


def roll_back(model: str, place: Place, version: int | None = None, key: str | None = None) -> ModelVersion:
    """Make a version, the previous champion when none is named, champion again. Raises NotFoundError."""
    return _move(place, ROLLBACK, model, place.registry.previous(model).version if version is None else version, key)


def retire(model: str, place: Place) -> ModelVersion:
    """Nothing is champion any more: servers that answer for many models let go of this one. The version that was.

    Raises NotFoundError when there was none.
    """
    body = {"version": place.registry.champion(model).version, "by": hold.somebody()}
    journal, key = Journal(place.storage), f"{body['version']}-{time.time_ns()}"
    journal.write(model, RETIREMENT, BEGUN, key, body)
    place.registry.end_trial(model)
    retired = place.registry.retire(model)
    journal.write(model, RETIREMENT, DONE, key, body)
    return retired


def _move(place: Place, kind: str, model: str, version: int, key: str | None) -> ModelVersion:
    place.registry.get(model, version)
    # Without a key it is a person's act, and theirs to answer for.
    body = {"version": version} | ({} if key else {"by": hold.somebody()})
    journal, key = Journal(place.storage), key or f"{version}-{time.time_ns()}"
    journal.write(model, kind, BEGUN, key, body)
    moved = place.registry.promote(model, version)
    # What was on trial was so beside another champion.
    place.registry.end_trial(model)
    journal.write(model, kind, DONE, key, body)
    return moved


def _note(spec: Spec, place: Place, challenger: ModelVersion, verdict: Verdict) -> None:
    tree = verdict.to_dict()
    Tracker(place.settings, spec.name).open(challenger.run).log_json(tree, "verdict.json")
    # A tag has a limit, and slices can be many: their checks are in the file.
    del tree["checks"]
    place.registry.tag(spec.name, challenger.version, {_VERDICT: json.dumps(tree)})


def _judged(spec: Spec, place: Place, champion: ModelVersion | None, challenger: ModelVersion) -> Verdict:
    folder, targets = place.registry.download(challenger), tasks.get(spec.task).targets
    rows = pd.read_parquet(folder / "reference.parquet").rename(columns={"label": "challenger"})
    try:
        examine.certify(place, challenger, spec.serving.engine, spec.serving.vllm)
    except GateRefusedError as error:
        return Verdict(promote=False, reasons=(str(error),), numbers={})
    if champion is None:
        return gate.first(rows, spec.evaluation, targets)
    ours = Predictor.load(place.registry.download(champion))
    rows["champion"] = [output.label for output in ours(list(rows["input"]))]
    ratios = footprint.compare(ours, Predictor.load(folder), list(rows["input"]))
    return gate.judge(rows, ratios, spec.evaluation, targets)
