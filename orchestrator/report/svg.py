"""The frontier as inline SVG.

Across, places are percentages of the width, so that the picture grows and shrinks with the page
while its text keeps its size. Colours are the page's CSS variables, for light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from orchestrator.config import Method
from orchestrator.method.stage import RemovalPoint
from orchestrator.report import words
from orchestrator.report.trials import Setback, TrialPoints, by_trial
from orchestrator.space import symbols
from orchestrator.store.frontier import FrontierPoint

HEIGHT = 330
CROSS = "M-4-4 4 4M-4 4 4-4"
SHAPES: dict[Method, str] = {
    "stepwise": '<circle r="6"/>',
    "explicit_cot": '<path d="M0-7 6.5 5h-13z"/>',
    "no_cot": '<rect x="-5.5" y="-5.5" width="11" height="11"/>',
    "icot_kd": '<path d="M0-7 7 0 0 7-7 0z"/>',
}


def frontier_svg(
    points: Sequence[FrontierPoint],
    after_removal: Mapping[str, Sequence[RemovalPoint]],
    failed: Sequence[Setback],
    description: str,
) -> str:
    """Exact match against removed tokens. Every stage can be reached with the keyboard."""
    total = points[0].total_tokens
    trials = by_trial(points)
    parts = [
        f'<svg class="frontier" width="100%" height="{HEIGHT}" role="group" aria-labelledby="frontier-t frontier-d">',
        '<title id="frontier-t">Exact match against removed CoT tokens</title>',
        f'<desc id="frontier-d">{escape(description)}</desc>',
        *_axes(total),
        *(line for trial in trials for line in _lines(trial, total)),
        *(mark for trial in trials for mark in _removal_marks(after_removal.get(trial.last.trial, ()), total)),
        *(_setback_mark(setback, total) for setback in failed),
        *(_mark(point, total, "earlier") for trial in trials for point in trial.earlier),
        *(_mark(point, total, "end") for trial in trials for point in trial.curve),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(methods: Iterable[Method], *, restarted: bool = False) -> str:
    """What the marks mean; a method has one entry, however many seeds."""
    shown = set(methods)
    entries = [(f"end {method}", SHAPES[method], words.LABELS[method]) for method in words.LABELS if method in shown]
    if "stepwise" in shown:
        entries.append(("removal stepwise", '<circle r="3"/>', "right after a removal"))
        entries.append(("earlier stepwise", '<circle r="3.5"/>', "earlier stage at the same count"))
    if restarted:
        entries.append(("setback stepwise", f'<path d="{CROSS}"/>', "a failed attempt"))
    items = "".join(
        f'<li><svg width="16" height="16" viewBox="-8 -8 16 16" aria-hidden="true"><g class="{look}">{shape}</g></svg>'
        f"{label}</li>"
        for look, shape, label in entries
    )
    return f'<ul class="legend">{items}</ul>'


def ticks(total: int) -> list[int]:
    """Round numbers from 0 up, at most seven, and the total itself."""
    step = next(s * 10**e for e in range(9) for s in (1, 2, 5) if total <= 6 * s * 10**e)
    below = [tick for tick in range(0, total, step) if total - tick > 0.6 * step]
    return [*below, total]


def _axes(total: int) -> Iterator[str]:
    for tenth in (0, 2, 4, 6, 8, 10):
        y = _y(tenth / 10)
        yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="-12" y="{y}" dy=".32em" text-anchor="end">{tenth / 10:g}</text>'
    for tick in ticks(total):
        yield f'<text class="tick" x="{_x(tick, total)}" y="{HEIGHT + 26}" text-anchor="middle">{tick}</text>'
    yield '<text class="axis" x="-34" y="-22">exact match</text>'
    yield f'<text class="axis" x="50%" y="{HEIGHT + 52}" text-anchor="middle">CoT tokens removed, of {total}</text>'


def _lines(trial: TrialPoints, total: int) -> Iterator[str]:
    if trial.method != "stepwise":
        y = _y(trial.last.exact_match)
        yield f'<line class="baseline {trial.method}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
    for a, b in zip(trial.curve, trial.curve[1:], strict=False):
        yield (
            f'<line class="curve {trial.method}" x1="{_x(a.removed_tokens, total)}" y1="{_y(a.exact_match)}" '
            f'x2="{_x(b.removed_tokens, total)}" y2="{_y(b.exact_match)}"/>'
        )


def _removal_marks(after_removal: Iterable[RemovalPoint], total: int) -> Iterator[str]:
    for removal in after_removal:
        says = f"right after removing token {removal.removed_tokens}: exact match {words.exact(removal.exact_match)}"
        yield (
            f'<circle class="removal stepwise" cx="{_x(removal.removed_tokens, total)}" '
            f'cy="{_y(removal.exact_match)}" r="3"><title>{says}</title></circle>'
        )


def _setback_mark(setback: Setback, total: int) -> str:
    """A cross where an attempt failed; what is known of it shows on hover and stands in the page's table."""
    says = f"{setback.trial}, stage {setback.stage} {setback.verdict}: {setback.why}; then {setback.then}"
    return (
        f'<svg x="{_x(setback.removed_tokens, total)}" y="{_y(setback.exact_match or 0.0)}">'
        f'<g class="setback {setback.method}"><title>{escape(says)}</title><path d="{CROSS}"/></g></svg>'
    )


def _mark(point: FrontierPoint, total: int, look: str) -> str:
    """A nested ``svg`` puts the shape at a percentage. The tip shows on keyboard focus, the title on hover."""
    shape = SHAPES[point.method] if look == "end" else '<circle r="3.5"/>'
    settings = "".join(f"{part}, " for part in [symbols(tuple(point.settings.items()))] if part)
    stage = f"{words.LABELS[point.method]}, {settings}seed {point.seed}, stage {point.stage}"
    value = f"{point.removed_tokens} removed, exact match {words.exact(point.exact_match)}"
    anchor = "start" if 2 * point.removed_tokens < total else "end"
    y = 26 if point.exact_match > 0.5 else -32
    return (
        f'<svg x="{_x(point.removed_tokens, total)}" y="{_y(point.exact_match)}">'
        f'<g class="{look} {point.method}" tabindex="0" role="img" aria-label="{stage}: {value}">'
        f"<title>{stage}: {value}</title>{shape}"
        f'<text class="tip" y="{y}" text-anchor="{anchor}">{stage}<tspan x="0" dy="1.4em">{value}</tspan></text>'
        "</g></svg>"
    )


def _x(removed: int, total: int) -> str:
    return f"{100 * removed / total:.2f}%"


def _y(exact_match: float) -> str:
    return f"{HEIGHT * (1 - exact_match):.1f}"
