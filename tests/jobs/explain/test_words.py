"""Explanations of a net made by hand, whose true attributions are known, and of a real encoder."""

from __future__ import annotations

import re
import shutil
import threading
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import DataError, UserError
from examples import sentiment_data
from jobs import specfile
from jobs.explain import faithfulness, highlight
from jobs.explain.words import TextExplanation, Word, _trimmed
from jobs.models import model
from jobs.models.predictor import Predictor
from jobs.pipeline import Place
from jobs.tasks.task import Bounds
from jobs.training import loop, tokens
from jobs.training.loop import Work
from tests import tiny

LABELS = ("negative", "positive")
TEXT = "the film so great"


class Counting(torch.nn.Module):
    """Each good word adds 1 to the score of `positive`, each bad one takes 1 away; nothing else counts."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.worth = torch.nn.Embedding(len(tokenizer), 2)
        with torch.no_grad():
            self.worth.weight.zero_()
            self.worth.weight[tokenizer.convert_tokens_to_ids(tiny.GOOD), 0] = 1
            self.worth.weight[tokenizer.convert_tokens_to_ids(tiny.BAD), 0] = -1

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.worth

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> Any:
        embeddings = self.worth(input_ids) if inputs_embeds is None else inputs_embeds
        score = (embeddings * attention_mask.unsqueeze(-1)).sum(1)[:, 0]
        return SimpleNamespace(logits=torch.stack([-score, score], -1), hidden_states=(embeddings,))


@pytest.fixture(scope="module")
def knowing(base_model: Path) -> Predictor:
    tokenizer = tiny.TASK.processor(base_model)
    return Predictor(Counting(tokenizer), tiny.TASK, tokenizer, LABELS, Bounds(32, 1))


def test_the_words_that_carry_the_label_are_named_and_no_other(knowing: Predictor) -> None:
    for row in tiny.rows(8, seed=8):
        made = knowing.explain(row["input"], None, 8)
        assert made.label == row["label"]
        named = {word.word for word in made.words if abs(word.attribution) > 1e-6}
        assert named == set(row["input"].split()) & {*tiny.GOOD, *tiny.BAD}
        assert {word.attribution > 0 for word in made.words if word.word in named} == {True}


def test_attributions_add_up_to_the_score_they_explain(knowing: Predictor) -> None:
    made = knowing.explain("great the bad day fine", None, 32)
    share = 1 / (1 + np.exp(-2.0))
    assert (made.label, made.score, made.empty_score) == ("positive", pytest.approx(share), 0.5)
    added = [word.attribution for word in made.words]
    assert added == pytest.approx([share - 0.5, 0, 0.5 - share, 0, share - 0.5], abs=1e-5)
    assert sum(added) == pytest.approx(made.score - made.empty_score + made.gap, abs=1e-6)
    assert abs(made.gap) < 1e-5 < abs(knowing.explain("great lovely fine warm", None, 2).gap)
    assert [made.input[w.start : w.end] for w in made.words] == [w.word for w in made.words] == made.input.split()


def test_the_other_label_is_explained_by_the_opposite(knowing: Predictor) -> None:
    made, other = (knowing.explain(TEXT, label, 32) for label in ("positive", "negative"))
    assert [w.attribution for w in made.words] == pytest.approx([-w.attribution for w in other.words], abs=1e-5)


def test_an_unknown_label_gets_one_line(knowing: Predictor) -> None:
    with pytest.raises(UserError, match=r"'sad' is no label of this model \(labels are negative, positive\)"):
        knowing.explain(TEXT, "sad", 4)


def test_pieces_of_a_word_are_one_word_and_what_is_cut_off_is_not_there(knowing: Predictor) -> None:
    made = knowing.explain("good!  unheardof " + "so " * 40, None, 2)
    assert [w.word for w in made.words[:3]] == ["good", "!", "unheardof"]
    assert (made.words[2].start, made.words[2].end) == (7, 16)
    assert len(made.words) == 30  # max_length 32 less the tokenizer's two marks


def test_a_text_without_words_has_nothing_to_name(knowing: Predictor) -> None:
    made = knowing.explain("  ", None, 2)
    assert made.words == ()
    assert made.score == pytest.approx(made.empty_score)


def test_answers_are_the_same_while_another_thread_explains(knowing: Predictor) -> None:
    texts = [row["input"] for row in tiny.rows(16, seed=5)]
    expected = [o.confidence for o in knowing(texts)]
    ended = threading.Event()

    def explain() -> None:
        while not ended.is_set():
            knowing.explain(TEXT, None, 64)

    thread = threading.Thread(target=explain)
    thread.start()
    try:
        for _ in range(20):
            np.testing.assert_allclose([o.confidence for o in knowing(texts)], expected, atol=1e-6)
    finally:
        ended.set()
        thread.join()


def test_cutting_named_words_costs_more_than_cutting_others(knowing: Predictor) -> None:
    made = faithfulness.check(knowing, [row["input"] for row in tiny.rows(15, seed=6)], 8)
    assert made.inputs == 15
    assert made.named > made.chance + 0.05
    assert "15 inputs, 20% of their parts cut" in highlight.faithfulness(made)


@pytest.mark.slow
def test_explanations_of_a_real_encoder_are_true_to_it(process_group: None, place: Place, tmp_path: Path) -> None:
    rows = pd.DataFrame(sentiment_data.read(sentiment_data.fetch()["train"])).rename(columns={"text": "input"})
    rows = rows.sample(400, random_state=0)
    spec = specfile.load(Path("examples/sentiment.yaml")).with_values({"scaling.workers": 1})
    parts = {"rows/train.parquet": rows.head(320), "rows/validation.parquet": rows.tail(40)}
    job = Work(spec, LABELS, *tokens.kept(place.storage, parts, spec, LABELS), zero_stage=0, epochs=3)

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)

    loop.run(job, rank=0, world=1, threads=1, report=report)
    net = model.load(tmp_path, tiny.TASK, spec.base_model, LABELS, merge=True)
    made = Predictor(net, tiny.TASK, tiny.TASK.processor(model.locate(spec.base_model)), LABELS, Bounds(64, 1))
    found = faithfulness.check(made, list(rows["input"].tail(40)), 16)
    assert found.named > 2 * max(found.chance, 0.02)
    worst = max(abs(made.explain(text, None, 32).gap) for text in rows["input"].tail(20))
    assert worst < 0.02


def test_texts_that_cannot_be_cut_are_refused(knowing: Predictor) -> None:
    with pytest.raises(DataError, match="no input has two parts"):
        faithfulness.check(knowing, ["good", "bad"], 2)


def test_other_kinds_of_tokens_are_trimmed_to_their_word() -> None:
    assert _trimmed("a  good day", 1, 7, 0.5) == Word("good", 3, 7, 0.5)


WORDS = st.text(st.sampled_from("ab<&>é' "), min_size=1, max_size=20)


@st.composite
def explanations(draw: Any) -> TextExplanation:
    text = draw(WORDS)
    ends = sorted(draw(st.sets(st.integers(0, len(text)), min_size=2, max_size=6)))
    spans = list(zip(ends[::2], ends[1::2], strict=False))
    values = draw(st.lists(st.floats(-1, 1), min_size=len(spans), max_size=len(spans)))
    words = tuple(Word(text[a:b], a, b, v) for (a, b), v in zip(spans, values, strict=True))
    return TextExplanation(text, "positive", 0.9, 0.5, 0.001, words)


@settings(max_examples=50)
@given(explanations())
def test_every_picture_of_it_shows_the_whole_text(made: TextExplanation) -> None:
    shown = re.search(r'<p class="text">(.*?)</p>', highlight.page([made]), re.DOTALL)
    assert shown is not None
    assert unescape(re.sub(r"<span[^>]*>|</span>", "", shown[1])) == made.input
    bare = re.sub(r"\x1b\[[0-9;]*m", "", highlight.coloured([made]))
    assert made.input.rstrip() in bare
    assert all(f"{word.attribution:+.3f}" in highlight.plain([made]) for word in made.words)


@given(explanations())
def test_words_that_are_cut_are_gone(made: TextExplanation) -> None:
    left = made.without(made.words)
    kept = "".join(c for i, c in enumerate(made.input) if not any(w.start <= i < w.end for w in made.words))
    assert left == " ".join(kept.split())
