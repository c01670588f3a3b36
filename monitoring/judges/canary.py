"""Is a version on trial as good as the champion beside it? Pure; what it judges is read by `observed.py`.

Three one-sided tests of the null hypothesis that the canary is as good: batches that failed (Fisher's exact test), the
time of a batch (Wilcoxon's signed ranks where both answered the same batches, else ranks within batches of the same
size, van Elteren 1960), and as labels arrive accuracy (exact McNemar where both answered the same inputs, else
Fisher's). Only what is worse by more than the spec allows drops a canary, and
only when it is no chance. What looks that much worse and may be chance is waited for, but not for ever.

Requests are dealt to versions by their key, so that keys are what is counted: a text that is asked a thousand times is
asked of one version only, and counts once. A batch, too, fails or is slow as a whole, and counts once.

The k-th look may use 1 / (k (k + 1)) of the false alarm rate, as in `regression.py`, and each test a third of that. A
look is due when a quarter more has been seen than at the last one; in between the last verdict stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from jobs.spec import CanarySpec
from monitoring.windows import ENOUGH_LABELS
from serve.log.predictions import Kind

from . import paired

Action = Literal["wait", "promote", "drop"]
WAIT: Action = "wait"
PROMOTE: Action = "promote"
DROP: Action = "drop"

FIRST_LOOK = 20
"""Keys that the canary must have been asked before it is looked at."""
_GROWTH = 1.25
_TESTS = 3
_PATIENCE = 4
"""Times `spec.rows` answers after which what may be chance counts as chance."""


@dataclass(frozen=True)
class Check:
    """One test. `beyond`: worse by more than allowed; `worse`: and no chance."""

    rule: str
    said: str
    p_value: float
    beyond: bool
    worse: bool


@dataclass(frozen=True)
class Trial:
    """Of version `version`, at look `look` (from 1), which may use `level`.

    `asked`, `rows`: different keys that it was asked, that it answered; `labelled`: of these with a true label;
    `champion_rows`: those that the champion answered beside it.
    `agreement`: share of inputs that both answered and labelled alike; None where none was answered by both.
    """

    version: int
    look: int
    level: float
    asked: int
    rows: int
    champion_rows: int
    labelled: int
    agreement: float | None
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class CanaryVerdict:
    action: Action
    reasons: tuple[str, ...]
    trial: Trial | None
    """None before the first look, and where the canary could not be loaded."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any] | None) -> CanaryVerdict | None:
        if tree is None:
            return None
        trial = tree["trial"]
        if trial is not None:
            trial = Trial(**{**trial, "checks": tuple(Check(**check) for check in trial["checks"])})
        return cls(tree["action"], tuple(tree["reasons"]), trial)


def judge(rows: pd.DataFrame, version: int, last: CanaryVerdict | None, spec: CanarySpec) -> CanaryVerdict:
    """Of `rows` as `observed.since` gives them, those of `version` are the canary's and all others the champion's.

    `last` is the verdict before this one on the same trial. Calling it again with the same rows changes nothing.
    """
    mine = rows["version"] == version
    refused = rows.loc[mine & (rows["kind"] == Kind.load), "fault"]
    if len(refused):
        return CanaryVerdict(DROP, (f"version {version} could not be loaded: {refused.iloc[0]}",), None)
    rows = rows[rows["kind"] != Kind.load]
    canary, champion = rows[rows["version"] == version], rows[rows["version"] != version]
    answered = canary[canary["fault"].isna()]
    keys = (part["key"].nunique() for part in (canary, answered, champion[champion["fault"].isna()]))
    asked, count, beside = map(int, keys)
    labelled = int(answered.loc[answered["true"].notna(), "key"].nunique())
    before = last.trial if last is not None and last.trial is not None and last.trial.version == version else None
    if not _due(asked, count, labelled, before, spec):
        waiting = (f"version {version} was asked {asked} different keys; the first look is at {FIRST_LOOK}",)
        return last if last is not None and before is not None else CanaryVerdict(WAIT, waiting, None)
    look = 1 if before is None else before.look + 1
    level = spec.false_alarm_rate / (look * (look + 1)) / _TESTS
    pairs = _pairs(champion, answered)
    checks = (
        _faults(champion, canary, level, spec),
        _latency(champion, answered, level, spec),
        _accuracy(champion, answered, pairs, level, spec),
    )
    agreement = float((pairs["champion"] == pairs["canary"]).mean()) if len(pairs) else None
    return _verdict(Trial(version, look, level, asked, count, beside, labelled, agreement, checks), spec)


def _due(asked: int, count: int, labelled: int, before: Trial | None, spec: CanarySpec) -> bool:
    if before is None:
        return asked >= FIRST_LOOK
    more_labels = labelled >= max(ENOUGH_LABELS, _GROWTH * before.labelled) and labelled > before.labelled
    return asked >= _GROWTH * before.asked or more_labels or before.rows < spec.rows <= count


def _verdict(trial: Trial, spec: CanarySpec) -> CanaryVerdict:
    reasons = [check.said for check in trial.checks]
    if trial.agreement is not None:
        reasons.append(f"both answer alike {trial.agreement:.1%} of what both were asked")
    if any(check.worse for check in trial.checks):
        return CanaryVerdict(DROP, tuple(reasons), trial)
    missing = [
        f"{have} of {need} {what}"
        for have, need, what in (
            (trial.rows, spec.rows, "answers"),
            (trial.champion_rows, FIRST_LOOK, "answers of the champion to compare with"),
            (trial.labelled, spec.labels, "labels"),
        )
        if have < need
    ]
    if missing:
        return CanaryVerdict(WAIT, (*reasons, *missing), trial)
    patient = trial.rows < _PATIENCE * spec.rows
    doubted = [check.rule for check in trial.checks if check.beyond]
    if doubted and patient:
        return CanaryVerdict(WAIT, (*reasons, f"more answers must show whether {', '.join(doubted)} is chance"), trial)
    return CanaryVerdict(PROMOTE, tuple(reasons), trial)


def _faults(champion: pd.DataFrame, canary: pd.DataFrame, level: float, spec: CanarySpec) -> Check:
    ours, theirs = (part.drop_duplicates("batch")["fault"].notna() for part in (champion, canary))
    a, b = (float(part.mean()) if len(part) else 0.0 for part in (ours, theirs))
    p_value = _fisher(int(theirs.sum()), len(theirs), int(ours.sum()), len(ours))
    said = f"{b:.1%} of {len(theirs)} batches failed, the champion's {a:.1%} of {len(ours)}"
    return _check("faults", said, p_value, level, beyond=b > a + spec.max_fault_share)


def _latency(champion: pd.DataFrame, canary: pd.DataFrame, level: float, spec: CanarySpec) -> Check:
    same = _same_batches(champion, canary)
    columns = ["batch", "batch_rows", "seconds"]
    ours, theirs = (part[columns].dropna().drop_duplicates("batch") for part in (champion, canary))
    if len(same):
        ratio, p_value = slower_pairs(same["champion"].to_numpy(), same["canary"].to_numpy())
    else:
        ratio, p_value = slower(
            *(part[column].to_numpy() for part in (ours, theirs) for column in ("batch_rows", "seconds"))
        )
    if ratio is None:
        return _check("latency", "no batches of the same size to compare times by", 1.0, level, beyond=False)
    said = f"a batch takes {ratio:.2f} times the champion's time, {spec.max_latency_ratio:g} allowed"
    return _check("latency", said, p_value, level, beyond=ratio > spec.max_latency_ratio)


def _accuracy(
    champion: pd.DataFrame, canary: pd.DataFrame, pairs: pd.DataFrame, level: float, spec: CanarySpec
) -> Check:
    if len(pairs):
        known = pairs[pairs["true"].notna()]
        ours, theirs = (known[name] == known["true"] for name in ("champion", "canary"))
        p_value = paired.mcnemar(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))
    else:
        ours, theirs = _right(champion), _right(canary)
        p_value = _fisher(int((~theirs).sum()), len(theirs), int((~ours).sum()), len(ours))
    if min(len(ours), len(theirs)) < ENOUGH_LABELS:
        few = f"{len(theirs)} labels, {ENOUGH_LABELS} needed to judge accuracy by"
        return _check("accuracy", few, 1.0, level, beyond=False)
    a, b = float(ours.mean()), float(theirs.mean())
    said = f"accuracy {b:.3f} on {len(theirs)} labels, the champion's {a:.3f} on {len(ours)}"
    return _check("accuracy", said, p_value, level, beyond=b < a - spec.max_loss)


def _check(rule: str, said: str, p_value: float, level: float, *, beyond: bool) -> Check:
    worse = beyond and p_value <= level
    verdict = f": worse (p {p_value:.2g}, {level:.2g} allowed)" if worse else ""
    return Check(rule, said + verdict, p_value, beyond, worse)


def _pairs(champion: pd.DataFrame, canary: pd.DataFrame) -> pd.DataFrame:
    """Inputs that both answered, one a key, with a label where one of them has it: champion, canary, true."""
    ours = champion.loc[champion["fault"].isna(), ["prediction_id", "label"]].rename(columns={"label": "champion"})
    theirs = canary.loc[canary["kind"] == Kind.shadow, ["prediction_id", "key", "label", "true"]]
    both: pd.DataFrame = theirs.rename(columns={"label": "canary"}).merge(ours, on="prediction_id")
    return _one_a_key(both)


def _same_batches(champion: pd.DataFrame, canary: pd.DataFrame) -> pd.DataFrame:
    """Seconds of the batches that a shadow had whole from the champion: champion, canary.

    One that lost a row on its way is none of them: it was smaller.
    """
    columns = ["prediction_id", "batch", "batch_rows", "seconds"]
    ours = champion[columns].dropna()
    theirs = canary.loc[canary["kind"] == Kind.shadow, columns].dropna()
    both = theirs.merge(ours, on=["prediction_id", "batch_rows"], suffixes=("", "_champion"))
    rows = both.groupby(["batch", "batch_champion"], sort=False)["prediction_id"].transform("size")
    whole = both[rows == both["batch_rows"]].drop_duplicates("batch")
    return pd.DataFrame({"champion": whole["seconds_champion"], "canary": whole["seconds"]})


def _right(rows: pd.DataFrame) -> pd.Series:
    known = _one_a_key(rows[rows["true"].notna() & rows["label"].notna()])
    return known["label"] == known["true"]


def _one_a_key(rows: pd.DataFrame) -> pd.DataFrame:
    first: pd.DataFrame = rows.sort_values("true", key=lambda true: true.isna(), kind="stable").drop_duplicates("key")
    return first


def _fisher(bad: int, of: int, their_bad: int, of_theirs: int) -> float:
    from scipy.stats import fisher_exact

    if not of or not of_theirs:
        return 1.0
    table = [[bad, of - bad], [their_bad, of_theirs - their_bad]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def slower(
    sizes: np.ndarray, seconds: np.ndarray, canary_sizes: np.ndarray, canary_seconds: np.ndarray
) -> tuple[float | None, float]:
    """Times the champion's time that the canary takes, and the chance of such ranks when both are as fast.

    Each array holds a value a batch. Within batches of one size the ratio is that of the medians, over the sizes their
    geometric mean by weight. None and 1 where no size is common to both.
    """
    from scipy.stats import norm, rankdata

    sum_, variance, logs, weights = 0.0, 0.0, [], []
    for size in np.intersect1d(sizes, canary_sizes):
        ours, theirs = seconds[sizes == size], canary_seconds[canary_sizes == size]
        n, m = len(ours), len(theirs)
        ranks = rankdata(np.concatenate([ours, theirs]))
        # Ties shrink the variance: that of the ranks there are.
        sum_ += (ranks[n:].sum() - m * (n + m + 1) / 2) / (n + m + 1)
        variance += n * m / (n + m) * ranks.var(ddof=1) / (n + m + 1) ** 2
        logs.append(np.log(np.median(theirs) / np.median(ours)))
        weights.append(n * m / (n + m))
    if not logs:
        return None, 1.0
    p_value = float(norm.sf(sum_ / np.sqrt(variance))) if variance else 1.0
    return float(np.exp(np.average(logs, weights=weights))), p_value


def slower_pairs(seconds: np.ndarray, canary_seconds: np.ndarray) -> tuple[float | None, float]:
    """As `slower`, of batches that both had: the median of the ratios, and the chance of such signed ranks (Wilcoxon
    1945) when which of the two took longer is chance.
    """
    from scipy.stats import wilcoxon

    logs = np.log(canary_seconds / seconds)
    differing = logs[logs != 0]
    p_value = float(wilcoxon(differing, alternative="greater").pvalue) if len(differing) else 1.0
    return float(np.exp(np.median(logs))), p_value
