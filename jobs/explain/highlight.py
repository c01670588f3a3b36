"""Explanations for eyes: colours on a terminal, signed numbers in a log, an HTML page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from html import escape

from rich.console import Console
from rich.text import Text

from jobs.show import table

from . import heatmap
from .explanation import Explanation
from .faithfulness import Faithfulness
from .pixels import ImageExplanation
from .words import TextExplanation, Word

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>rehone: explanations</title><style>
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }}
p.text {{ font-size: 1.15rem; white-space: pre-wrap }}
span {{ padding: .1em .15em; border-radius: .2em }}
small {{ color: #59636e }}
img {{ height: 16rem; image-rendering: pixelated; margin-right: 1rem }}
</style></head><body>
<h1>Explanations</h1>
<p>What is green speaks for the label, what is red against it; the stronger the colour, the more it adds to the
probability. Integrated gradients, against an input with nothing in it.</p>
{parts}
</body></html>
"""


def coloured(found: Sequence[Explanation]) -> str:
    """With terminal colours: green speaks for the label, red against it."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", highlight=False, soft_wrap=True)
    for made in found:
        console.print(Text(_head(made), style="bold"))
        console.print(_tinted(made) if isinstance(made, ImageExplanation) else _line(_text(made)))
    return out.getvalue().rstrip("\n")


def plain(found: Sequence[Explanation]) -> str:
    """Each word with what it added, in the order of the text; of an image, its cells from the top."""
    return "\n\n".join(f"{_head(made)}\n{_numbers(made)}" for made in found)


def _numbers(made: Explanation) -> str:
    if isinstance(made, ImageExplanation):
        return "\n".join(" ".join(f"{value:+.3f}" for value in row) for row in made.grid)
    return table("", ["added", "word"], ([f"{word.attribution:+.3f}", word.word] for word in _text(made).words))


def _text(made: Explanation) -> TextExplanation:
    assert isinstance(made, TextExplanation)
    return made


def _line(made: TextExplanation) -> Text:
    line = Text()
    for piece, word in _pieces(made):
        line.append(piece, style=_style(made, word) if word else "")
    return line


def _tinted(made: ImageExplanation) -> Text:
    """A cell is two blanks wide, about a square."""
    rows = Text()
    for row in heatmap.strengths(made):
        for strength in row:
            red, green, blue = heatmap.colour(float(strength))
            rows.append("  ", style=f"on rgb({red},{green},{blue})")
        rows.append("\n")
    return rows


def page(found: Sequence[Explanation]) -> str:
    """A whole HTML page that needs nothing else."""
    return _PAGE.format(parts="\n".join(map(_part, found)))


def faithfulness(made: Faithfulness) -> str:
    return (
        f"{made.inputs} inputs, {made.share:.0%} of their parts cut: the label's probability falls by {made.named:.3f} "
        f"without the parts that explanations name, by {made.chance:.3f} without parts drawn by chance"
    )


def _part(made: Explanation) -> str:
    head = f"<h2>{escape(made.label)} {made.score:.3f}</h2>"
    if isinstance(made, ImageExplanation):
        pictures = "".join(f'<img alt="" src="{source}">' for source in (made.input, heatmap.drawn(made)))
        return f"{head}\n<p>{pictures}</p>\n<small>{escape(_foot(made))}</small>"
    text = _text(made)
    words = "".join(_span(text, piece, word) if word else escape(piece) for piece, word in _pieces(text))
    return f'{head}\n<p class="text">{words}</p>\n<small>{escape(_foot(made))}</small>'


def _span(made: TextExplanation, piece: str, word: Word) -> str:
    red, green, blue = _colour(word)
    style = f"background: rgba({red}, {green}, {blue}, {_strength(made, word):.2f})"
    return f'<span title="{word.attribution:+.4f}" style="{style}">{escape(piece)}</span>'


def _pieces(made: TextExplanation) -> Iterator[tuple[str, Word | None]]:
    """The whole text in order; what lies between words, and what the model did not read, comes without one."""
    at = 0
    for word in made.words:
        if word.start > at:
            yield made.input[at : word.start], None
        yield word.word, word
        at = word.end
    if at < len(made.input):
        yield made.input[at:], None


def _strength(made: TextExplanation, word: Word) -> float:
    """0 to 1, beside the strongest word of the text."""
    most = max(abs(w.attribution) for w in made.words)
    return abs(word.attribution) / most if most else 0.0


def _colour(word: Word) -> tuple[int, int, int]:
    return heatmap.FOR if word.attribution > 0 else heatmap.AGAINST


def _style(made: TextExplanation, word: Word) -> str:
    """A terminal has no transparency: the colour itself is darkened."""
    strength = _strength(made, word)
    if strength < 0.1:  # noqa: PLR2004 - would be black
        return ""
    red, green, blue = (round(part * strength) for part in _colour(word))
    return f"white on rgb({red},{green},{blue})"


def _head(made: Explanation) -> str:
    return f"{made.label} {made.score:.3f} ({_foot(made)})"


def _foot(made: Explanation) -> str:
    return f"{made.empty_score:.3f} with nothing in it; attributions miss the difference by {abs(made.gap):.1g}"
