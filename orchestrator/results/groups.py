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
"""The words in the place of a picture."""
CROWD = 30
"""The most seeds that a picture shows one by one."""


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
    """The ends between which exact match lies in nine of ten seeds; in all where there are fewer than 20."""


@dataclass(frozen=True)
class Group:
    """The trials of one method and configuration, one a seed."""

    trials: tuple[TrialPoints, ...]
    curve: tuple[MeanPoint, ...]
    """The means by removed count; a baseline has its last stage alone."""

    @property
    def method(self) -> Method:
        return self.trials[0].method

    @property
    def settings(self) -> Mapping[str, Scalar]:
        return self.trials[0].last.settings

    @property
    def words(self) -> str:
        """The values that the search set, in short."""
        return self.trials[0].settings

    @property
    def crowded(self) -> bool:
        """True if a picture has the mean and the middle of the seeds in the place of each."""
        return len(self.trials) > CROWD

    @property
    def last(self) -> MeanPoint:
        return self.curve[-1]

    @property
    def front(self) -> tuple[MeanPoint, ...]:
        """The points of the curve that are worth having for their speed: none that writes as little is as accurate."""
        kept: list[MeanPoint] = []
        for point in sorted(self.curve, key=lambda point: (point.generated_tokens, -point.exact_match)):
            if not kept or point.exact_match > kept[-1].exact_match:
                kept.append(point)
        return tuple(kept)


def groups_of(trials: Iterable[TrialPoints], examples: int) -> tuple[Group, ...]:
    """Return the groups in plan order that have a stage which passed.

    ``examples``: how many validation examples exact match is measured on.
    """
    found: dict[tuple[Method, str], list[TrialPoints]] = {}
    for trial in trials:
        found.setdefault((trial.method, trial.settings), []).append(trial)
    groups = []
    for seeds in found.values():
        at: dict[int, list[FrontierPoint]] = {}
        for point in (point for trial in seeds for point in trial.curve):
            at.setdefault(point.removed_tokens, []).append(point)
        if at:
            curve = tuple(_mean(removed, points, examples) for removed, points in sorted(at.items()))
            groups.append(Group(tuple(seeds), curve))
    return tuple(groups)


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
