"""The points of a frontier trial by trial, as tables and pictures need them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.config import Method
from orchestrator.method.stage import RemovalPoint, Verdict
from orchestrator.plan.grid import symbols
from orchestrator.results.frontier import FrontierPoint
from orchestrator.trials.chain import Chain


@dataclass(frozen=True)
class TrialPoints:
    """The committed stages of one trial, in order."""

    stages: tuple[FrontierPoint, ...]
    restarts: int
    """The restarts so far, also one whose next attempt is not committed yet."""

    @property
    def last(self) -> FrontierPoint:
        """The last stage that passed, if any did."""
        return (self.passed or self.stages)[-1]

    @property
    def passed(self) -> tuple[FrontierPoint, ...]:
        return tuple(point for point in self.stages if point.passed)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the last stage, passed or not."""
        return self.stages[-1].verdict

    @property
    def seconds(self) -> float:
        """The seconds of training and evaluating all its stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def method(self) -> Method:
        return self.last.method

    @property
    def settings(self) -> str:
        """The values that the search set, in short."""
        return symbols(tuple(self.last.settings.items()))

    @property
    def curve(self) -> tuple[FrontierPoint, ...]:
        """The stages that the trial is judged by: a baseline's last one, else the last one at each removed count.

        Empty where none passed.
        """
        if self.method != "stepwise":
            return self.passed[-1:]
        return tuple({point.removed_tokens: point for point in self.passed}.values())

    @property
    def earlier(self) -> tuple[FrontierPoint, ...]:
        """The stages that a later one at the same removed count takes the place of: the recovery."""
        kept = {point.stage for point in self.curve}
        return tuple(p for p in self.passed if p.stage not in kept and self.method == "stepwise")


def by_trial(points: Iterable[FrontierPoint], chains: Iterable[Chain]) -> tuple[TrialPoints, ...]:
    """Return the trials that have points, in plan order."""
    restarts = {chain.trial.name: chain.restarts for chain in chains}
    stages: dict[str, list[FrontierPoint]] = {}
    for point in points:
        stages.setdefault(point.trial, []).append(point)
    return tuple(TrialPoints(tuple(of_trial), restarts[name]) for name, of_trial in stages.items())


def removals(chains: Iterable[Chain]) -> dict[str, tuple[RemovalPoint, ...]]:
    """Return the exact match right after each removal in the stages that stand, by trial."""
    return {
        chain.trial.name: tuple(removal for tried in chain.standing for removal in tried.manifest.metrics.after_removal)
        for chain in chains
    }


@dataclass(frozen=True)
class FailedAttempt:
    """A failed attempt, where it failed, and what was done about it."""

    trial: str
    method: Method
    stage: int
    verdict: Verdict
    why: str
    then: str
    removed_tokens: int
    exact_match: float | None
    """The exact match of the last spot check; None where there was none."""
    steps: int


def failed_attempts(chains: Iterable[Chain]) -> tuple[FailedAttempt, ...]:
    """Return those of every trial, in order."""
    found = []
    for chain in chains:
        for attempt in chain.failures:
            metrics = attempt.manifest.metrics
            last_check = metrics.blocks[-1] if metrics.blocks else None
            found.append(
                FailedAttempt(
                    trial=chain.trial.name,
                    method=chain.trial.method,
                    stage=attempt.stage.index,
                    verdict=attempt.manifest.verdict,
                    why=attempt.manifest.reason,
                    then=attempt.then,
                    removed_tokens=last_check.removed_tokens if last_check else metrics.removed_tokens,
                    exact_match=last_check.probe_exact_match if last_check else None,
                    steps=attempt.steps,
                )
            )
    return tuple(found)
