"""The points of a frontier trial by trial, as tables and pictures need them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.config import Method
from orchestrator.method.stage import RemovalPoint
from orchestrator.plan import Plan
from orchestrator.space import symbols
from orchestrator.store.frontier import FrontierPoint
from orchestrator.store.stages import StageStore


@dataclass(frozen=True)
class TrialPoints:
    """The committed stages of one trial, in order."""

    stages: tuple[FrontierPoint, ...]

    @property
    def last(self) -> FrontierPoint:
        return self.stages[-1]

    @property
    def method(self) -> Method:
        return self.last.method

    @property
    def settings(self) -> str:
        """What the search set, in short."""
        return symbols(tuple(self.last.settings.items()))

    @property
    def curve(self) -> tuple[FrontierPoint, ...]:
        """What the trial stands for: a baseline's last stage, else the last one at each removed count."""
        if self.method != "stepwise":
            return (self.last,)
        return tuple({point.removed_tokens: point for point in self.stages}.values())

    @property
    def earlier(self) -> tuple[FrontierPoint, ...]:
        """Stages that a later one at the same removed count takes the place of: the recovery."""
        kept = {point.stage for point in self.curve}
        return tuple(p for p in self.stages if p.stage not in kept and self.method == "stepwise")


def by_trial(points: Iterable[FrontierPoint]) -> tuple[TrialPoints, ...]:
    """The trials that have points, in plan order."""
    stages: dict[str, list[FrontierPoint]] = {}
    for point in points:
        stages.setdefault(point.trial, []).append(point)
    return tuple(TrialPoints(tuple(of_trial)) for of_trial in stages.values())


def removals(plan: Plan, store: StageStore) -> dict[str, tuple[RemovalPoint, ...]]:
    """Of every trial, the exact match right after each removal in its committed stages."""
    return {
        trial.name: tuple(
            removal
            for stage in trial.stages
            if (manifest := store.manifest(stage))
            for removal in manifest.metrics.after_removal
        )
        for trial in plan.trials
    }
