"""The label queue: the logged predictions most worth a true label, as a CSV for people, and their answers back.

A queue has `prediction_id`, `input`, `predicted`, `confidence`, `why` and an empty `label`. `acquisition.py` chooses
the rows, `page.py` makes a page for the browser; answers go to the feedback log, where labels that came in over
HTTP are, too.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cluster.errors import DataError, NotFoundError, UserError
from jobs import tasks
from jobs.data.faults import first_ten, in_file
from jobs.inputs import images
from jobs.models import manifest
from jobs.pipeline import Place
from jobs.spec import Spec
from monitoring import journal
from monitoring.journal import Journal
from monitoring.windows import labels_of, labels_since, unlabelled
from serve.log.predictions import Feedback, feedback_log, utc_now

from . import acquisition
from . import page as labelling

if TYPE_CHECKING:
    from cluster.store.storage import Storage

COLUMNS = ("prediction_id", "input", "predicted", "confidence", "why", "label")


@dataclass(frozen=True)
class Queued:
    """A queue that was written to `file`: `rows` of `candidates` answers of `version` that have no label.

    `page` is the same to label in a browser.
    """

    file: str
    page: str
    version: int
    rows: int
    candidates: int


@dataclass(frozen=True)
class Taken:
    """What came of a file of answers. `known`: labels that were there already; `empty`: rows without a label.

    `waiting`: labels that no retraining has used yet, of the `needed` from which one may start.
    """

    taken: int
    known: int
    empty: int
    waiting: int
    needed: int


def queue(spec: Spec, place: Place, out: Path, rows: int, latest: int) -> Queued:
    """Choose `rows` of the champion's `latest` unlabelled predictions and write them to `out`, with a page beside it.

    Raises UserError where either holds labels or something else, NotFoundError without a champion or candidates.
    """
    tasks.require_labels(spec.task, "a label queue")
    page = labelling.path(out)
    if page == out:
        raise UserError("is where the page for the browser goes", where=str(out), mend="name the queue FILE.csv")
    _require_unfilled(out)
    labelling.require_ours(page)
    champion = place.registry.champion(spec.name)
    found = unlabelled(place.storage, spec.name, champion.version, latest)
    if found.empty:
        raise NotFoundError(
            f"no prediction of version {champion.version} is in the log without a label",
            where=spec.name,
            mend="an answer moves there from its server's spool every serving.flush_seconds",
        )
    inputs, answers = tasks.get(spec.task).inputs, place.registry.read(champion, "reference.parquet")
    reference = pd.read_parquet(io.BytesIO(answers), columns=["embedding"])
    chosen = chosen_rows(found, reference, [inputs.key(text) for text in found["input"]], rows, spec.training.seed)
    text, known = _csv(chosen), manifest.of(place.registry, champion)["labels"]
    pictures = inputs.NAME == images.NAME
    _write(out, text)
    _write(page, labelling.html(text, known, out.name, spec.name, champion.version, images=pictures))
    return Queued(str(out), str(page), champion.version, len(chosen), len(found))


def chosen_rows(
    found: pd.DataFrame, reference: pd.DataFrame, keys: Sequence[str], rows: int, seed: int
) -> pd.DataFrame:
    """A queue, worthiest first. `found` is what `unlabelled` gives, `keys` what `Inputs.key` makes of its inputs."""
    points = np.stack(list(found["embedding"]))
    uncertain = acquisition.uncertainty(np.array([sorted(scores.values()) for scores in found["scores"]]))
    new = acquisition.novelty(points, np.stack(list(reference["embedding"])))
    same = np.unique(np.asarray(keys), return_inverse=True)[1]
    made = acquisition.choose(points, acquisition.weight(uncertain, new), same, rows, seed)
    table = found.iloc[made.rows].rename(columns={"label": "predicted"})
    given = zip(table["scores"], new[made.rows], made.like, strict=True)
    return table.assign(why=[_why(*each) for each in given], label="")[list(COLUMNS)]


def answer(spec: Spec, place: Place, file: Path) -> Taken:
    """Add a file's labels to the feedback, all or none; those that are there already add nothing.

    Raises DataError, which names the first ten faults by row and column, NotFoundError without a champion.
    """
    lines = _read(file)
    labels = manifest.of(place.registry, place.registry.champion(spec.name))["labels"]
    logged = labels_of(place.storage, spec.name, {line["prediction_id"] for line in lines})
    known = {row["prediction_id"]: row for row in logged.to_dict("records")}
    faults = [f"row {at} {fault}" for at, fault in enumerate(_faults(lines, known, labels), 1) if fault]
    if faults:
        raise DataError(first_ten(faults), where=str(file), mend="nothing was taken")
    given = {line["prediction_id"]: line["label"] for line in lines if line["label"]}
    new = {key: label for key, label in given.items() if known[key]["true"] != label}
    taken = _append(place.storage, spec.name, new, known)
    waiting = labels_since(place.storage, spec.name, _last_used(place.storage, spec.name))
    return Taken(taken, len(given) - taken, len(lines) - len(given), waiting, spec.monitoring.min_labels)


def queued(made: Queued) -> str:
    """What a person reads of a queue."""
    return (
        f"{made.rows} of {made.candidates} answers of version {made.version} without a label are in {made.file}; "
        f"open {made.page} in a browser and save, or fill in the column label, then `rehone label SPEC --answers FILE`"
    )


def taken(made: Taken) -> str:
    """What a person reads of answers."""
    left = max(0, made.needed - made.waiting)
    need = f"{left} more are needed" if left else "enough"
    return (
        f"{made.taken} labels taken, {made.known} were there already, {made.empty} rows have none; "
        f"{made.waiting} wait for a retraining, {need} (monitoring.min_labels {made.needed})"
    )


def _why(scores: Mapping[str, float], new: float, like: int) -> str:
    """Not which label is the likelier: whoever labels should not be led."""
    (first, high), (second, low) = sorted(scores.items(), key=lambda pair: -pair[1])[:2]
    either = " and ".join(sorted((first, second)))
    said = [f"{either} are {high - low:.2f} apart", f"farther from the test rows than {new:.0%} of them are"]
    return "; ".join([*said, f"stands for {like} alike"] if like > 1 else said)


def _require_unfilled(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_file():
        raise UserError("is no file", where=str(out), mend="name another one")
    with out.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError("exists already and is no label queue", where=str(out), mend="name another file")
        filled = sum(bool((line["label"] or "").strip()) for line in reader)
    if filled:
        mend = f"take them with --answers {out}, or name another file"
        raise UserError(f"{filled} labels are filled in", where=str(out), mend=mend)


def _csv(rows: pd.DataFrame) -> str:
    text = io.StringIO()
    rows.assign(confidence=rows["confidence"].round(4)).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue()


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(out), mend="name another file") from None


def _read(file: Path) -> list[dict[str, str]]:
    """Every row's id and label, without the blanks around them."""
    if not file.is_file():
        raise DataError("no such file", where=str(file))
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in ("prediction_id", "label") if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"has no column {', '.join(missing)}", where=str(file), mend="see `rehone label --out`")
            return [{name: (line[name] or "").strip() for name in ("prediction_id", "label")} for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(first_ten(in_file(file)) or str(error), where=str(file)) from None


def _faults(lines: Sequence[Mapping[str, str]], known: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """For each row what is wrong with it, or ""."""
    seen: set[str] = set()
    found = []
    for line in lines:
        key, label = line["prediction_id"], line["label"]
        if key not in known:
            found.append(f"column 'prediction_id': {key[:80]!r} is not in the prediction log")
        elif key in seen:
            found.append(f"column 'prediction_id': {key} is there twice")
        elif label and label not in labels:
            found.append(f"column 'label': {label[:80]!r} is none of {', '.join(labels)}")
        else:
            found.append("")
        seen.add(key)
    return found


def _append(storage: Storage, model: str, new: Mapping[str, str], known: Mapping[str, Any]) -> int:
    """How many rows were added: none of them when another process has taken the same file at the same time."""
    if not new:
        return 0
    # The label before belongs to it: that a label is changed and changed back is news each time.
    said = "\n".join(f"{key}\t{label}\t{known[key]['labelled_at']}" for key, label in sorted(new.items()))
    now, name = utc_now(), hashlib.sha256(said.encode()).hexdigest()
    rows = [Feedback(key, now, model, label).to_row() for key, label in new.items()]
    return len(rows) if feedback_log(storage).append(rows, (f"label-{model}-{name}", 1)) else 0


def _last_used(storage: Storage, model: str) -> Any:
    """When the last retraining that has ended began, which used the labels there were; None before the first."""
    retrains = Journal(storage).entries(model, journal.RETRAIN)
    ended = {entry.key for entry in retrains if entry.state == journal.DONE}
    return max((e.at for e in retrains if e.state == journal.BEGUN and e.key in ended), default=None)
