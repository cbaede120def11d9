"""A trial as it really goes: its attempts in order, the stages that stand, and the stage to come.

A chain is a value that says nothing of how it came about: ``trials/walk.py`` makes it, whether the trial is trained
or replayed from the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.plan import PlannedStage, Trial
from orchestrator.stability import AttemptFacts, GiveUp, History, Onward, Pace, Restart
from orchestrator.store.manifest import Manifest


@dataclass(frozen=True)
class Attempt:
    """A committed execution of a stage."""

    stage: PlannedStage
    """The stage as this attempt ran it: with its seed, pace and parents."""
    manifest: Manifest
    pace: Pace
    answer: Restart | GiveUp | None = None
    """The decision about a failed attempt; None for one that passed."""

    @property
    def steps(self) -> int:
        """Return the optimizer steps that it took."""
        taken = self.manifest.metrics.steps_taken
        return self.stage.spec.steps if taken is None else taken

    @property
    def then(self) -> str:
        """Return in words what was done about a failed attempt."""
        if isinstance(self.answer, Restart):
            return f"restart {self.answer.number} from stage {self.answer.from_stage}: {self.answer.change}"
        return "the trial gave up"

    @cached_property
    def facts(self) -> AttemptFacts:
        """Return what the restart policy needs to know of it."""
        metrics = self.manifest.metrics
        return AttemptFacts(
            stage=self.stage.index,
            verdict=self.manifest.verdict,
            steps=self.steps,
            detector=metrics.detector,
            pace=self.pace,
            consolidation=self.stage.spec.consolidation,
            exact_match=metrics.exact_match,
        )


@dataclass(frozen=True)
class Chain:
    """Where a trial stands."""

    trial: Trial
    next: PlannedStage | None
    """The stage to adopt or to train now; None once the trial is over."""
    pace: Pace
    """The pace of ``next``."""
    attempts: tuple[Attempt, ...] = ()
    standing: tuple[Attempt, ...] = ()
    """The attempts that passed and were not gone back over: one a stage, each the parent of the following."""
    furthest: tuple[Attempt, ...] = ()
    """The longest ``standing`` so far: a trial that gives up is left with it, wherever it had gone back to."""

    @classmethod
    def begin(cls, trial: Trial) -> Chain:
        """Return the chain of a trial before its first stage."""
        return cls(trial, trial.stages[0], Pace())

    def onward(self, attempt: Attempt, move: Onward) -> Chain:
        """Return the chain after an attempt that passed: it stands, and the next stage is to come."""
        standing, stage = (*self.standing, attempt), None
        if len(standing) < len(self.trial.stages):
            stage = self._stage_after(standing, move.seed, move.pace, restart=False)
        furthest = max(standing, self.furthest, key=len)
        return Chain(self.trial, stage, move.pace, (*self.attempts, attempt), standing, furthest)

    def restarted(self, failed: Attempt, move: Restart) -> Chain:
        """Return the chain after a failed attempt, back at the end of the stage before ``move.from_stage``."""
        attempts, standing = (*self.attempts, replace(failed, answer=move)), self.standing[: move.from_stage]
        stage = self._stage_after(standing, move.seed, move.pace, restart=True)
        return Chain(self.trial, stage, move.pace, attempts, standing, self.furthest)

    def ended(self, failed: Attempt, move: GiveUp) -> Chain:
        """Return the chain after a failed attempt with which the trial gives up."""
        attempts = (*self.attempts, replace(failed, answer=move))
        return Chain(self.trial, None, self.pace, attempts, self.furthest, self.furthest)

    def _stage_after(self, standing: tuple[Attempt, ...], seed: int, pace: Pace, *, restart: bool) -> PlannedStage:
        before = [attempt.stage for attempt in standing]
        return self.trial.stages[len(standing)].attempted(before, seed, pace, restart=restart)

    @cached_property
    def history(self) -> History:
        """Return the good stages that the next one is measured by: those it stands on."""
        history = History()
        for attempt in self.standing:
            if attempt.manifest.verdict == "good":
                history = history.grown(attempt.manifest.metrics.blocks)
        return history

    def restarts_before(self, attempt: Attempt) -> int:
        """Return how often the trial had been restarted when this attempt began."""
        return sum(earlier.answer is not None for earlier in self.attempts[: self.attempts.index(attempt)])

    def steps_before(self, attempt: Attempt) -> int:
        """Return the optimizer steps of the stages that stood when this attempt began."""
        stood = {a.stage.index: a.steps for a in self.attempts[: self.attempts.index(attempt)] if a.manifest.passed}
        return sum(steps for index, steps in stood.items() if index < attempt.stage.index)

    @property
    def failures(self) -> tuple[Attempt, ...]:
        """Return the attempts that failed."""
        return tuple(attempt for attempt in self.attempts if attempt.answer)

    @property
    def restarts(self) -> int:
        """Return how often the trial was restarted."""
        return sum(isinstance(attempt.answer, Restart) for attempt in self.attempts)

    @property
    def given_up(self) -> GiveUp | None:
        """Return the decision to give up, if that was the last one."""
        last = self.attempts[-1].answer if self.attempts else None
        return last if isinstance(last, GiveUp) else None

    @property
    def obstacle(self) -> Attempt | None:
        """Return the last attempt at the stage that a trial which gave up did not get over."""
        at = [attempt for attempt in self.failures if attempt.stage.index == len(self.standing)]
        return at[-1] if self.given_up and at else None

    @property
    def finished(self) -> bool:
        """Return whether every stage stands."""
        return len(self.standing) == len(self.trial.stages)


def standing_manifests(chains: Iterable[Chain]) -> dict[str, Manifest]:
    """Return the manifests that stand in the places of the planned stages, by their planned keys."""
    return {
        planned.key: attempt.manifest
        for chain in chains
        for planned, attempt in zip(chain.trial.stages, chain.standing, strict=False)
    }
