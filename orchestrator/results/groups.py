"""Trials that differ in nothing but their seed: their mean, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.config import Method, Scalar
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.intervals import interval, middle
from orchestrator.results.trial_points import TrialPoints

NOTHING = "No stage has passed yet."
"""In place of a picture."""
CROWD = 30
"""Of more seeds than this no picture shows each."""


@dataclass(frozen=True)
class MeanPoint:
    """The mean over seeds at one removed count, with the 95 % interval of its exact match."""

    removed_tokens: int
    exact_match: float
    low: float
    high: float
    generated_tokens: float
    speedup: float | None
    seeds: int
    middle: tuple[float, float]
    """Between which exact match lies in nine of ten seeds; in all where there are fewer than 20."""


@dataclass(frozen=True)
class Group:
    """The trials of one method and configuration, one a seed."""

    trials: tuple[TrialPoints, ...]
    curve: tuple[MeanPoint, ...]
    """By removed count; of a baseline its last stage alone."""

    @property
    def method(self) -> Method:
        return self.trials[0].method

    @property
    def settings(self) -> Mapping[str, Scalar]:
        return self.trials[0].last.settings

    @property
    def words(self) -> str:
        """What the search set, in short."""
        return self.trials[0].settings

    @property
    def crowded(self) -> bool:
        """Whether it is drawn as its mean and the middle of its seeds."""
        return len(self.trials) > CROWD

    @property
    def last(self) -> MeanPoint:
        return self.curve[-1]

    @property
    def front(self) -> tuple[MeanPoint, ...]:
        """Of the curve what is worth having for its speed: no point that writes as little is as accurate."""
        kept: list[MeanPoint] = []
        for point in sorted(self.curve, key=lambda point: (point.generated_tokens, -point.exact_match)):
            if not kept or point.exact_match > kept[-1].exact_match:
                kept.append(point)
        return tuple(kept)


def groups_of(trials: Iterable[TrialPoints], examples: int) -> tuple[Group, ...]:
    """The groups in plan order that have a stage which passed. ``examples``: how many exact match is measured on."""
    found: dict[tuple[Method, str], list[TrialPoints]] = {}
    for trial in trials:
        found.setdefault((trial.method, trial.settings), []).append(trial)
    groups = (Group(tuple(seeds), _curve(seeds, examples)) for seeds in found.values())
    return tuple(group for group in groups if group.curve)


def _curve(trials: Sequence[TrialPoints], examples: int) -> tuple[MeanPoint, ...]:
    at: dict[int, list[FrontierPoint]] = {}
    for trial in trials:
        for point in trial.curve:
            at.setdefault(point.removed_tokens, []).append(point)
    return tuple(_mean(removed, points, examples) for removed, points in sorted(at.items()))


def _mean(removed: int, points: Sequence[FrontierPoint], examples: int) -> MeanPoint:
    shares = [point.exact_match for point in points]
    speedups = [point.speedup for point in points if point.speedup is not None]
    return MeanPoint(
        removed,
        fmean(shares),
        *interval(shares, examples),
        generated_tokens=fmean(point.generated_tokens for point in points),
        speedup=fmean(speedups) if speedups else None,
        seeds=len(points),
        middle=middle(shares),
    )
