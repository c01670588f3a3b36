"""Explanations for eyes: coloured words on a terminal, signed numbers in a log, an HTML page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from html import escape

from rich.console import Console
from rich.text import Text

from jobs.show import table

from .explain import Explanation, Word
from .faithfulness import Faithfulness

_FOR, _AGAINST = (46, 160, 67), (218, 54, 51)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>rehone: explanations</title><style>
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }}
p.text {{ font-size: 1.15rem; white-space: pre-wrap }}
span {{ padding: .1em .15em; border-radius: .2em }}
small {{ color: #59636e }}
</style></head><body>
<h1>Explanations</h1>
<p>Green words speak for the label, red ones against it; the stronger the colour, the more they add to its probability.
Integrated gradients, against the text with no words.</p>
{parts}
</body></html>
"""


def coloured(found: Sequence[Explanation]) -> str:
    """With terminal colours: green speaks for the label, red against it."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", highlight=False, soft_wrap=True)
    for made in found:
        console.print(Text(_head(made), style="bold"))
        line = Text()
        for piece, word in _pieces(made):
            line.append(piece, style=_style(made, word) if word else "")
        console.print(line)
    return out.getvalue().rstrip("\n")


def plain(found: Sequence[Explanation]) -> str:
    """Each word with what it added, in the order of the text."""
    return "\n\n".join(f"{_head(made)}\n{_words(made)}" for made in found)


def _words(made: Explanation) -> str:
    return table("", ["added", "word"], ([f"{word.attribution:+.3f}", word.word] for word in made.words))


def page(found: Sequence[Explanation]) -> str:
    """A whole HTML page that needs nothing else."""
    return _PAGE.format(parts="\n".join(map(_part, found)))


def faithfulness(made: Faithfulness) -> str:
    return (
        f"{made.texts} texts, {made.share:.0%} of the words cut: the label's probability falls by {made.named:.3f} "
        f"without the words that explanations name, by {made.chance:.3f} without words drawn by chance"
    )


def _part(made: Explanation) -> str:
    words = "".join(_span(made, piece, word) if word else escape(piece) for piece, word in _pieces(made))
    head = f"<h2>{escape(made.label)} {made.score:.3f}</h2>"
    return f'{head}\n<p class="text">{words}</p>\n<small>{escape(_foot(made))}</small>'


def _span(made: Explanation, piece: str, word: Word) -> str:
    red, green, blue = _colour(word)
    style = f"background: rgba({red}, {green}, {blue}, {_strength(made, word):.2f})"
    return f'<span title="{word.attribution:+.4f}" style="{style}">{escape(piece)}</span>'


def _pieces(made: Explanation) -> Iterator[tuple[str, Word | None]]:
    """The whole text in order; what lies between words, and what the model did not read, comes without one."""
    at = 0
    for word in made.words:
        if word.start > at:
            yield made.text[at : word.start], None
        yield word.word, word
        at = word.end
    if at < len(made.text):
        yield made.text[at:], None


def _strength(made: Explanation, word: Word) -> float:
    """0 to 1, beside the strongest word of the text."""
    most = max(abs(w.attribution) for w in made.words)
    return abs(word.attribution) / most if most else 0.0


def _colour(word: Word) -> tuple[int, int, int]:
    return _FOR if word.attribution > 0 else _AGAINST


def _style(made: Explanation, word: Word) -> str:
    """A terminal has no transparency: the colour itself is darkened."""
    strength = _strength(made, word)
    if strength < 0.1:  # noqa: PLR2004 - would be black
        return ""
    red, green, blue = (round(part * strength) for part in _colour(word))
    return f"white on rgb({red},{green},{blue})"


def _head(made: Explanation) -> str:
    return f"{made.label} {made.score:.3f} ({_foot(made)})"


def _foot(made: Explanation) -> str:
    return f"{made.empty_score:.3f} with no words; attributions miss the difference by {abs(made.gap):.1g}"
