"""The frontier as inline SVG.

Across, places are percentages of the width, so that the picture grows and shrinks with the page
while its text keeps its size. Colours are the page's CSS variables, for light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from orchestrator import labels
from orchestrator.config import Method
from orchestrator.method.stage import RemovalPoint
from orchestrator.plan.grid import symbols
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.groups import Group, MeanPoint
from orchestrator.results.trial_points import FailedAttempt, TrialPoints

HEIGHT = 300
CROSS = "M-4-4 4 4M-4 4 4-4"
SHAPES: dict[Method, str] = {
    "stepwise": '<circle r="6"/>',
    "explicit_cot": '<path d="M0-7 6.5 5h-13z"/>',
    "no_cot": '<rect x="-5.5" y="-5.5" width="11" height="11"/>',
    "icot_kd": '<path d="M0-7 7 0 0 7-7 0z"/>',
}


@dataclass(frozen=True)
class Drawing:
    """What a picture shows. ``faint``: curves to compare with, as lines alone."""

    groups: Sequence[Group]
    after_removal: Mapping[str, Sequence[RemovalPoint]]
    failed: Sequence[FailedAttempt] = ()
    faint: Sequence[Group] = ()

    @property
    def each(self) -> Iterator[TrialPoints]:
        """The trials that are drawn one by one, baselines over the rest: their few marks would be hidden."""
        ordered = sorted(self.groups, key=lambda group: group.method != "stepwise")
        return (trial for group in ordered if not group.crowded for trial in group.trials)

    @property
    def crowds(self) -> Iterator[tuple[Group, MeanPoint]]:
        """The means of those that are not."""
        return ((group, point) for group in self.groups if group.crowded for point in group.curve)

    @property
    def total(self) -> int:
        return self.groups[0].trials[0].last.total_tokens

    @property
    def speeds(self) -> float | None:
        """The highest speed-up, if every point has one."""
        found = [point.speedup for group in self.groups for point in group.curve]
        return None if None in found else max(speed for speed in found if speed is not None)


def removal_svg(drawing: Drawing, name: str, description: str, height: int = HEIGHT, *, reachable: bool = True) -> str:
    """Exact match against removed tokens. ``reachable``: every stage can be reached with the keyboard."""
    total = max(1, drawing.total)  # data without CoT have their points at the left
    across = [(tick / total, str(tick)) for tick in ticks(drawing.total)]
    removals = [r for trial in drawing.each for r in drawing.after_removal.get(trial.last.trial, ())]
    parts = [
        *_axes(across, f"CoT tokens removed, of {drawing.total}", height),
        *(line for group in drawing.faint for line in _curve(group, total, height, "faint")),
        *(_band(group, [p.middle for p in group.curve], total, height) for group in drawing.groups if group.crowded),
        *(_band(group, [(p.low, p.high) for p in group.curve], total, height) for group in drawing.groups),
        *(line for group in drawing.groups for line in _curve(group, total, height, "curve")),
        *(_removal_mark(removal, total, height) for removal in removals),
        *(_failed_mark(failed, total, height) for failed in drawing.failed),
        *(
            _mark(point, point.removed_tokens / total, look, height, reachable)
            for look, which in (("earlier", "earlier"), ("end", "curve"))
            for trial in drawing.each
            for point in getattr(trial, which)
        ),
        *(_mean_mark(group, p, p.removed_tokens / total, height) for group, p in drawing.crowds),
    ]
    title, role = "Exact match against removed CoT tokens", "group" if reachable else "img"
    return _svg(name, title, description, parts, height, role)


def speed_svg(drawing: Drawing, name: str, height: int = HEIGHT) -> str:
    """Exact match against the speed-up over No CoT, or against tokens written where speeds cannot be compared."""
    fastest = drawing.speeds
    if fastest is None:
        longest = max(point.generated_tokens for group in drawing.groups for point in group.curve)
        label, title = "tokens written per answer", "Exact match against tokens written"
        across = [(1 - tick / longest, f"{tick:g}") for tick in round_numbers(longest)]
    else:
        label, title = "examples/s at batch 1, over No CoT", "Exact match against speed"
        across = [(tick / fastest, f"{tick:g}x") for tick in round_numbers(fastest)]

    def place(point: FrontierPoint | MeanPoint) -> float:
        return (point.speedup or 0.0) / fastest if fastest else 1 - point.generated_tokens / longest

    parts = [
        *_axes(across, label, height),
        *(
            f'<line class="curve {g.method}" {_ends(place(a), place(b), a, b, height)}/>'
            for g in drawing.groups
            for a, b in pairwise(g.front)
        ),
        *(_whisker(group, point, place(point), height) for group in drawing.groups for point in group.curve),
        *(_mark(p, place(p), "end", height, reachable=False) for trial in drawing.each for p in trial.curve),
        *(_mean_mark(group, p, place(p), height) for group, p in drawing.crowds),
    ]
    return _svg(name, title, "The table below has its numbers.", parts, height)


def legend(groups: Sequence[Group], *, failed: bool = False, others: bool = False) -> str:
    """What the marks mean; a method has one entry, however many seeds."""
    shown = {group.method for group in groups}
    entries = [(f"end {method}", SHAPES[method], labels.LABELS[method]) for method in labels.LABELS if method in shown]
    if any(group.method == "stepwise" and not group.crowded for group in groups):
        entries.append(("removal stepwise", '<circle r="3"/>', "right after a removal"))
        entries.append(("earlier stepwise", '<circle r="3.5"/>', "earlier stage at the same count"))
    if failed:
        entries.append(("failed stepwise", f'<path d="{CROSS}"/>', "a failed attempt"))
    if others:
        entries.append(("faint stepwise", '<path d="M-8 0h16"/>', "other configurations"))
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


def round_numbers(most: float) -> list[float]:
    """From 0 up, at most five."""
    step = next(s * 10.0**e for e in range(-6, 9) for s in (1, 2, 5) if most <= 5 * s * 10.0**e)
    return [round(step * i, 9) for i in range(int(most / step + 1e-9) + 1)]


def _svg(name: str, title: str, description: str, parts: Iterable[str], height: int, role: str = "img") -> str:
    return "\n".join(
        [
            f'<svg class="frontier" width="100%" height="{height}" role="{role}" aria-labelledby="{name}-t {name}-d">',
            f'<title id="{name}-t">{title}</title>',
            f'<desc id="{name}-d">{escape(description)}</desc>',
            *parts,
            "</svg>",
        ]
    )


def _axes(across: Iterable[tuple[float, str]], label: str, height: int) -> Iterator[str]:
    for tenth in (0, 2, 4, 6, 8, 10):
        y = _y(tenth / 10, height)
        yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="-12" y="{y}" dy=".32em" text-anchor="end">{tenth / 10:g}</text>'
    for place, tick in across:
        yield f'<text class="tick" x="{_x(place)}" y="{height + 26}" text-anchor="middle">{tick}</text>'
    yield '<text class="axis" x="-34" y="-22">exact match</text>'
    yield f'<text class="axis" x="50%" y="{height + 52}" text-anchor="middle">{label}</text>'


def _band(group: Group, ends: Sequence[tuple[float, float]], total: int, height: int) -> str:
    """From low to high at every point of the curve: around it, or along a baseline's line."""
    if group.method != "stepwise":
        bottom, top = (_y(end, height) for end in ends[-1])
        path = f"0,{top} 100,{top} 100,{bottom} 0,{bottom}"
    else:
        across = [f"{100 * p.removed_tokens / total:.2f}" for p in group.curve]
        upper = [f"{x},{_y(high, height)}" for x, (_, high) in zip(across, ends, strict=True)]
        lower = [f"{x},{_y(low, height)}" for x, (low, _) in zip(across, ends, strict=True)]
        path = " ".join(upper + lower[::-1])
    return (
        f'<svg width="100%" height="{height}" viewBox="0 0 100 {height}" preserveAspectRatio="none" '
        f'aria-hidden="true"><polygon class="band {group.method}" points="{path}"/></svg>'
    )


def _curve(group: Group, total: int, height: int, look: str) -> Iterator[str]:
    if group.method != "stepwise":
        y = _y(group.last.exact_match, height)
        yield f'<line class="baseline {group.method}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
    for a, b in zip(group.curve, group.curve[1:], strict=False):
        ends = _ends(a.removed_tokens / total, b.removed_tokens / total, a, b, height)
        yield f'<line class="{look} {group.method}" {ends}/>'


def _ends(from_: float, to: float, a: MeanPoint, b: MeanPoint, height: int) -> str:
    ys = _y(a.exact_match, height), _y(b.exact_match, height)
    return f'x1="{_x(from_)}" y1="{ys[0]}" x2="{_x(to)}" y2="{ys[1]}"'


def _whisker(group: Group, point: MeanPoint, place: float, height: int) -> str:
    """The 95 % interval; of a crowd the middle of its seeds, as the interval hides behind the mark."""
    x, (low, high) = _x(place), point.middle if group.crowded else (point.low, point.high)
    return f'<line class="whisker {group.method}" x1="{x}" x2="{x}" y1="{_y(low, height)}" y2="{_y(high, height)}"/>'


def _removal_mark(removal: RemovalPoint, total: int, height: int) -> str:
    says = f"right after removing token {removal.removed_tokens}: exact match {labels.exact(removal.exact_match)}"
    return (
        f'<circle class="removal stepwise" cx="{_x(removal.removed_tokens / total)}" '
        f'cy="{_y(removal.exact_match, height)}" r="3"><title>{says}</title></circle>'
    )


def _failed_mark(failed: FailedAttempt, total: int, height: int) -> str:
    """A cross where an attempt failed; what is known of it shows on hover and stands in the page's table."""
    says = f"{failed.trial}, stage {failed.stage} {failed.verdict}: {failed.why}; {failed.then}"
    return (
        f'<svg x="{_x(failed.removed_tokens / total)}" y="{_y(failed.exact_match or 0.0, height)}">'
        f'<g class="failed {failed.method}"><title>{escape(says)}</title><path d="{CROSS}"/></g></svg>'
    )


def _mark(point: FrontierPoint, place: float, look: str, height: int, reachable: bool) -> str:
    """A nested ``svg`` puts the shape at a percentage. The tip shows on keyboard focus, the title on hover."""
    shape = SHAPES[point.method] if look == "end" else '<circle r="3.5"/>'
    settings = "".join(f"{part}, " for part in [symbols(tuple(point.settings.items()))] if part)
    stage = f"{labels.LABELS[point.method]}, {settings}seed {point.seed}, stage {point.stage}"
    value = f"{point.removed_tokens} removed, exact match {labels.exact(point.exact_match)}"
    mark = f"<title>{stage}: {value}</title>{shape}"
    focus = ""
    if reachable:
        anchor, y = "start" if place < 0.5 else "end", 26 if point.exact_match > 0.5 else -32
        focus = f' tabindex="0" role="img" aria-label="{stage}: {value}"'
        mark += (
            f'<text class="tip" y="{y}" text-anchor="{anchor}">{stage}<tspan x="0" dy="1.4em">{value}</tspan></text>'
        )
    return (
        f'<svg x="{_x(place)}" y="{_y(point.exact_match, height)}">'
        f'<g class="{look} {point.method}"{focus}>{mark}</g></svg>'
    )


def _mean_mark(group: Group, point: MeanPoint, place: float, height: int) -> str:
    """Of a crowd, at its mean."""
    settings = "".join(f"{part}, " for part in [group.words] if part)
    low, high = map(labels.exact, point.middle)
    says = (
        f"{labels.LABELS[group.method]}, {settings}{point.seeds:,} seeds: {point.removed_tokens} removed, exact match "
        f"{labels.exact(point.exact_match)} on average, nine in ten from {low} to {high}"
    )
    return (
        f'<svg x="{_x(place)}" y="{_y(point.exact_match, height)}">'
        f'<g class="end {group.method}"><title>{escape(says)}</title>{SHAPES[group.method]}</g></svg>'
    )


def _x(place: float) -> str:
    return f"{100 * place:.2f}%"


def _y(exact_match: float, height: int) -> str:
    return f"{height * (1 - exact_match):.1f}"
