"""The timeline as SVG: accuracy by labels, estimated and of the test rows; drift, decisions, what was done. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import groupby

from monitoring import journal, policy

from .overview import Decided, Event, Overview, Window, span

_WIDTH, _HEIGHT = 900, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 26, 84
_FLOOR = _HEIGHT - _BOTTOM
_LANES = {journal.RETRAIN: 0, journal.TRIAL: 1, journal.PAUSE: 2}
_DRIFT, _DECIDED, _LASTING, _LANE = _FLOOR + 20, _FLOOR + 34, _FLOOR + 42, 8  # heights below the chart
_TICKS = 5
_NEAR = 60  # of the right edge, where a word in the middle would be cut


def svg(overview: Overview) -> str:
    """Empty without windows."""
    if not overview.windows:
        return ""
    scale = _Scale(overview)
    parts = [*_grid(scale), *_lasting(overview.events, scale), *_moments(overview.events, scale)]
    parts += [*_lines(overview.windows, scale), *_points(overview.windows, scale)]
    parts += [*_drift(overview.windows, scale), *_decided(overview.decisions, scale)]
    label = "accuracy of each window over time, with drift, decisions, retrainings, trials and promotions"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}" class="timeline">{"".join(parts)}</svg>'
    )


class _Scale:
    def __init__(self, overview: Overview) -> None:
        self.first, self.last = span(overview)
        values = [v for w in overview.windows for v in (w.accuracy, w.estimated, w.reference) if v is not None]
        self.low = max(0.0, min(values) - 0.05)
        self.high = min(1.0, max(values) + 0.02)
        if self.high - self.low < 0.05:  # noqa: PLR2004 - one value would be a line on the edge
            self.low = max(0.0, self.high - 0.05)

    def shows(self, at: datetime) -> bool:
        return self.first <= at <= self.last

    def x(self, at: datetime) -> float:
        share = (at - self.first) / (self.last - self.first)
        return _LEFT + min(1.0, max(0.0, share)) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _FLOOR - share * (_FLOOR - _TOP)


def _grid(scale: _Scale) -> Iterator[str]:
    for step in range(_TICKS):
        value = scale.low + (scale.high - scale.low) * step / (_TICKS - 1)
        y = scale.y(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        at, anchor = scale.first + (scale.last - scale.first) * step / (_TICKS - 1), "middle"
        anchor = {0: "start", _TICKS - 1: "end"}.get(step, anchor)
        yield f'<text x="{scale.x(at):.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{at:%d %b %H:%M}</text>'


def _lines(windows: Sequence[Window], scale: _Scale) -> Iterator[str]:
    """One of each kind a version: what two versions did is not one line."""
    for _, group in groupby(windows, key=lambda window: window.version):
        of_version = list(group)
        for name, values in (
            ("reference", [(w, w.reference) for w in of_version]),
            ("estimated", [(w, w.estimated) for w in of_version]),
            ("measured", [(w, w.accuracy) for w in of_version if w.accuracy is not None]),
        ):
            points = " ".join(f"{scale.x(w.end):.1f},{scale.y(value):.1f}" for w, value in values)
            yield f'<polyline class="{name}" points="{points}"/>'


def _points(windows: Sequence[Window], scale: _Scale) -> Iterator[str]:
    for window in windows:
        value = window.estimated if window.accuracy is None else window.accuracy
        kind = "estimated" if window.accuracy is None else "measured"
        said = f"window {window.number} of version {window.version}: {kind} {value:.3f}"
        x, y = scale.x(window.end), scale.y(value)
        yield _linked(
            f"/windows/{window.key}", said, f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>{_touch(x, y)}'
        )


def _drift(windows: Sequence[Window], scale: _Scale) -> Iterator[str]:
    for window in windows:
        if window.moved:
            x, said = scale.x(window.end), f"window {window.number}: {', '.join(window.moved)} drifted"
            shape = f'<path class="drift" d="M{x - 5:.1f} {_DRIFT} h10 l-5 -9 z"/>'
            yield _linked(f"/windows/{window.key}", said, shape)


def _decided(decisions: Sequence[Decided], scale: _Scale) -> Iterator[str]:
    """A dot each; one that keeps is pale."""
    for made in decisions:
        if scale.shows(made.at):
            kind = made.action.replace(" ", "-")
            radius = 2 if made.action == policy.KEEP else 4
            dot = f'<circle class="decided {kind}" cx="{scale.x(made.at):.1f}" cy="{_DECIDED - 5}" r="{radius}"/>'
            yield _linked(f"#decision-{made.key}", f"{made.action}: {'; '.join(made.reasons)}", dot)


def _lasting(events: Sequence[Event], scale: _Scale) -> Iterator[str]:
    for event in events:
        end = event.end or scale.last
        if event.kind in _LANES and end >= scale.first:
            x, y = scale.x(event.start), _LASTING + _LANES[event.kind] * _LANE
            width = max(3.0, scale.x(end) - x)
            bar = f'<rect class="{event.kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_LANE - 2}" rx="2"/>'
            yield _linked(event.link, event.said, bar)


def _moments(events: Sequence[Event], scale: _Scale) -> Iterator[str]:
    for event in events:
        if event.kind in {journal.PROMOTION, journal.ROLLBACK} and scale.shows(event.start):
            x = scale.x(event.start)
            anchor = "end" if x > _WIDTH - _NEAR else "start" if x < _NEAR else "middle"
            shape = (
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{_FLOOR}"/>'
                f'<text x="{x:.1f}" y="{_TOP - 12}" text-anchor="{anchor}">{escape(event.mark)}</text>'
            )
            yield f'<g class="{event.kind}">{_linked(event.link, event.said, shape)}</g>'


def _linked(link: str, said: str, shape: str) -> str:
    """A shape that says what it is, and leads to more of it."""
    named = f"<title>{escape(said)}</title>{shape}"
    return f'<a href="{escape(link)}">{named}</a>' if link else f"<g>{named}</g>"


def _touch(x: float, y: float) -> str:
    """What a finger hits."""
    return f'<circle class="touch" cx="{x:.1f}" cy="{y:.1f}" r="12"/>'
