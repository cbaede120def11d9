"""The frontier as a picture: which lines, bands and marks it has, and where. html/picture.svg draws them.

Places are shares of a panel: from 0 at its left to 1 at its right, and exact match upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from orchestrator import labels
from orchestrator.config import Method
from orchestrator.plan.grid import symbols
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.groups import Group, MeanPoint
from orchestrator.results.trial_points import TrialPoints

Look = Literal["band", "middle", "baseline", "curve", "faint", "whisker", "end", "earlier", "removal", "failed"]
"""The class of a part of the picture in picture.css."""
Across = Callable[[FrontierPoint | MeanPoint], float]


@dataclass(frozen=True)
class Band:
    """An interval along a line: (across, low, high) at each of its points."""

    look: Look
    method: Method
    edges: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Line:
    """A straight line from one (across, exact match) to another."""

    look: Look
    method: Method
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A point. ``name`` says what it stands for, ``value`` what was measured there."""

    look: Look
    method: Method
    across: float
    exact_match: float
    name: str
    value: str


@dataclass(frozen=True)
class Panel:
    """Exact match against something else, with the parts in the order in which they are drawn."""

    title: str
    axis: str
    """The words below the panel."""
    ticks: Sequence[tuple[float, str]]
    bands: Sequence[Band]
    lines: Sequence[Line]
    marks: Sequence[Mark]


@dataclass(frozen=True)
class LegendEntry:
    """A look of the picture, and what it means."""

    look: Look
    method: Method
    words: str


def removal_panel(findings: Findings, groups: Sequence[Group], others: Sequence[Group] = ()) -> Panel:
    """Return exact match against removed tokens. ``others``: groups to compare with, drawn as faint lines alone."""
    total = groups[0].trials[0].last.total_tokens
    width = max(1, total)  # the points of data without CoT lie at the left

    def across(point: FrontierPoint | MeanPoint) -> float:
        return point.removed_tokens / width

    removals = [
        Mark(
            "removal",
            trial.method,
            removal.removed_tokens / width,
            removal.exact_match,
            f"right after removing token {removal.removed_tokens}",
            f"exact match {labels.exact(removal.exact_match)}",
        )
        for trial in _drawn_one_by_one(groups)
        for removal in findings.after_removal.get(trial.last.trial, ())
    ]
    failed = [
        Mark(
            "failed",
            attempt.method,
            attempt.removed_tokens / width,
            attempt.exact_match or 0.0,
            f"{attempt.trial}, stage {attempt.stage} {attempt.verdict}",
            f"{attempt.why}; {attempt.then}",
        )
        for attempt in findings.crosses(groups)
    ]
    earlier = [_stage(p, "earlier", across) for trial in _drawn_one_by_one(groups) for p in trial.earlier]
    return Panel(
        "Exact match against removed CoT tokens",
        f"CoT tokens removed, of {total}",
        [(tick / width, str(tick)) for tick in ticks(total)],
        [
            *(_band(group, "middle", [p.middle for p in group.curve], across) for group in groups if group.crowded),
            *(_band(group, "band", [(p.low, p.high) for p in group.curve], across) for group in groups),
        ],
        [
            *(line for group in others for line in _joined("faint", group.method, group.curve, across)),
            *(
                Line("baseline", group.method, (0, group.last.exact_match), (1, group.last.exact_match))
                for group in groups
                if group.method != "stepwise"
            ),
            *(line for group in groups for line in _joined("curve", group.method, group.curve, across)),
        ],
        [*removals, *failed, *earlier, *_ends(groups, across)],
    )


def speed_panel(groups: Sequence[Group]) -> Panel:
    """Return exact match against the speed-up over No CoT, or against tokens written where a speed-up is missing."""
    points = [point for group in groups for point in group.curve]
    speeds = [point.speedup for point in points if point.speedup is not None]
    if len(speeds) == len(points):
        title, axis, most = "Exact match against speed", "examples/s at batch 1, over No CoT", max(speeds)
        marked = [(tick / most, f"{tick:g}x") for tick in _round_numbers(most)]
    else:
        title, axis = "Exact match against tokens written", "tokens written per answer"
        most = max(point.generated_tokens for point in points)
        marked = [(1 - tick / most, f"{tick:g}") for tick in _round_numbers(most)]

    def across(point: FrontierPoint | MeanPoint) -> float:
        if len(speeds) == len(points):
            return (point.speedup or 0.0) / most
        return 1 - point.generated_tokens / most

    whiskers = []
    for group in groups:
        for point in group.curve:
            low, high = point.middle if group.crowded else (point.low, point.high)
            whiskers.append(Line("whisker", group.method, (across(point), low), (across(point), high)))
    curves = [line for group in groups for line in _joined("curve", group.method, group.front, across)]
    return Panel(title, axis, marked, [], [*curves, *whiskers], list(_ends(groups, across)))


def legend(findings: Findings) -> list[LegendEntry]:
    """Return what the looks mean; a method has one entry, however many seeds."""
    groups = findings.shown
    shown = {group.method for group in groups}
    entries = [LegendEntry("end", method, name) for method, name in labels.LABELS.items() if method in shown]
    lead = groups[0].method if "stepwise" not in shown else "stepwise"
    entries.append(LegendEntry("band", lead, "95 % interval"))
    if any(group.crowded for group in groups):
        entries.append(LegendEntry("middle", lead, "nine in ten seeds"))
    if any(group.method == "stepwise" and not group.crowded for group in groups):
        entries.append(LegendEntry("removal", "stepwise", "right after a removal"))
        entries.append(LegendEntry("earlier", "stepwise", "earlier stage at the same count"))
    if findings.crosses(groups):
        entries.append(LegendEntry("failed", lead, "a failed attempt"))
    if findings.others:
        entries.append(LegendEntry("faint", "stepwise", "other configurations"))
    return entries


def ticks(total: int) -> list[int]:
    """Return round numbers from 0 up, at most seven, and the total itself."""
    step = next(s * 10**e for e in range(9) for s in (1, 2, 5) if total <= 6 * s * 10**e)
    below = [tick for tick in range(0, total, step) if total - tick > 0.6 * step]
    return [*below, total]


def _round_numbers(most: float) -> list[float]:
    """Return at most six round numbers from 0 up."""
    step = next(s * 10.0**e for e in range(-6, 9) for s in (1, 2, 5) if most <= 5 * s * 10.0**e)
    return [round(step * i, 9) for i in range(int(most / step + 1e-9) + 1)]


def _drawn_one_by_one(groups: Sequence[Group]) -> Iterator[TrialPoints]:
    """Yield the trials that are not drawn as a crowd, baselines last: other marks would hide their few."""
    ordered = sorted(groups, key=lambda group: group.method != "stepwise")
    return (trial for group in ordered if not group.crowded for trial in group.trials)


def _joined(look: Look, method: Method, points: Sequence[MeanPoint], across: Across) -> Iterator[Line]:
    for a, b in pairwise(points):
        yield Line(look, method, (across(a), a.exact_match), (across(b), b.exact_match))


def _band(group: Group, look: Look, ends: Sequence[tuple[float, float]], across: Across) -> Band:
    """Return the band around a curve, or along a baseline's line."""
    if group.method != "stepwise":
        return Band(look, group.method, [(0, *ends[-1]), (1, *ends[-1])])
    edges = [(across(point), *end) for point, end in zip(group.curve, ends, strict=True)]
    return Band(look, group.method, edges)


def _ends(groups: Sequence[Group], across: Across) -> Iterator[Mark]:
    """Yield a mark for every point of the curves; of a crowd of seeds, for their mean."""
    for trial in _drawn_one_by_one(groups):
        yield from (_stage(point, "end", across) for point in trial.curve)
    for group in groups:
        for point in group.curve if group.crowded else ():
            low, high = map(labels.exact, point.middle)
            yield Mark(
                "end",
                group.method,
                across(point),
                point.exact_match,
                ", ".join(filter(None, [labels.LABELS[group.method], group.words, f"{point.seeds:,} seeds"])),
                f"{point.removed_tokens} removed, exact match {labels.exact(point.exact_match)} on average, "
                f"nine in ten from {low} to {high}",
            )


def _stage(point: FrontierPoint, look: Look, across: Across) -> Mark:
    settings = symbols(tuple(point.settings.items()))
    name = [labels.LABELS[point.method], settings, f"seed {point.seed}", f"stage {point.stage}"]
    value = f"{point.removed_tokens} removed, exact match {labels.exact(point.exact_match)}"
    return Mark(look, point.method, across(point), point.exact_match, ", ".join(filter(None, name)), value)
