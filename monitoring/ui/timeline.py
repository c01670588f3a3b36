"""The timeline as SVG: accuracy by labels, estimated and of the test rows, drifted windows, what was done. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape

from monitoring import journal

from .overview import Event, Overview, Window, span

_WIDTH, _HEIGHT = 900, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 26, 64
_LANES = {journal.RETRAIN: 0, journal.TRIAL: 1, journal.PAUSE: 2}
_LANE = 9


def svg(overview: Overview) -> str:
    """Empty without windows."""
    if not overview.windows:
        return ""
    scale = _Scale(overview)
    parts = [*_grid(scale), *_lasting(overview.events, scale), *_moments(overview.events, scale)]
    parts += [*_lines(overview.windows, scale), *_drift(overview.windows, scale)]
    label = "accuracy of each window over time, with drift, retrainings, trials and promotions"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}" class="timeline">{"".join(parts)}</svg>'
    )


class _Scale:
    def __init__(self, overview: Overview) -> None:
        self.first, self.last = span(overview)
        self.end = overview.at
        values = [v for w in overview.windows for v in (w.accuracy, w.estimated, w.reference) if v is not None]
        self.low = max(0.0, min(values) - 0.05)
        self.high = min(1.0, max(values) + 0.02)
        if self.high - self.low < 0.05:  # noqa: PLR2004 - one value would be a line on the edge
            self.low = max(0.0, self.high - 0.05)

    def x(self, at: datetime) -> float:
        share = (at - self.first) / (self.last - self.first)
        return _LEFT + min(1.0, max(0.0, share)) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _grid(scale: _Scale) -> Iterator[str]:
    for step in range(5):
        value = scale.low + (scale.high - scale.low) * step / 4
        y = scale.y(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
    for at, anchor in ((scale.first, "start"), (scale.last, "end")):
        yield f'<text x="{scale.x(at):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{at:%d %b %H:%M}</text>'


def _lines(windows: Sequence[Window], scale: _Scale) -> Iterator[str]:
    for name, values in (
        ("reference", [(w, w.reference) for w in windows]),
        ("estimated", [(w, w.estimated) for w in windows]),
        ("measured", [(w, w.accuracy) for w in windows if w.accuracy is not None]),
    ):
        points = [(scale.x(w.end), scale.y(value)) for w, value in values if value is not None]
        if points:
            yield f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
    for window in windows:
        value = window.estimated if window.accuracy is None else window.accuracy
        kind = "estimated" if window.accuracy is None else "measured"
        said = escape(f"window {window.number} of version {window.version}: {kind} {value:.3f}")
        yield (
            f'<a href="/windows/{window.key}"><circle class="{kind}" cx="{scale.x(window.end):.1f}" '
            f'cy="{scale.y(value):.1f}" r="4"><title>{said}</title></circle></a>'
        )


def _drift(windows: Sequence[Window], scale: _Scale) -> Iterator[str]:
    y = _HEIGHT - _BOTTOM + 12
    for window in windows:
        if window.moved:
            x, said = scale.x(window.end), escape(f"window {window.number}: {', '.join(window.moved)} drifted")
            yield f'<path class="drift" d="M{x - 5:.1f} {y + 8} h10 l-5 -9 z"><title>{said}</title></path>'


def _lasting(events: Sequence[Event], scale: _Scale) -> Iterator[str]:
    for event in events:
        if event.kind in _LANES:
            x, end = scale.x(event.start), scale.x(event.end or scale.end)
            y = _HEIGHT - _BOTTOM + 24 + _LANES[event.kind] * _LANE
            yield (
                f'<rect class="{event.kind}" x="{x:.1f}" y="{y}" width="{max(3.0, end - x):.1f}" height="{_LANE - 3}">'
                f"<title>{escape(event.said)}</title></rect>"
            )


def _moments(events: Sequence[Event], scale: _Scale) -> Iterator[str]:
    for event in events:
        if event.kind in {journal.PROMOTION, journal.ROLLBACK}:
            x, name = scale.x(event.start), event.said.split()[1] if event.kind == journal.PROMOTION else "back"
            mark = f"v{name}" if event.kind == journal.PROMOTION else "rolled back"
            anchor = "end" if x > _WIDTH - 60 else "middle"
            yield (
                f'<g class="{event.kind}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{_HEIGHT - _BOTTOM}"/>'
                f'<text x="{x:.1f}" y="{_TOP - 12}" text-anchor="{anchor}">{mark}</text>'
                f"<title>{escape(event.said)}</title></g>"
            )
