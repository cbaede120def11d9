"""A trial as it really goes: its attempts in order, the stages that stand, and what comes next.

A fold over committed manifests, those of failed attempts too. Whoever trains, watches or reports a
trial follows this one chain, so a run that was killed decides again what it had decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.plan import Plan, PlannedStage, Trial
from orchestrator.stability import Attempt, GiveUp, History, Pace, Restart, next_move, next_pace, next_seed
from orchestrator.store.stages import Manifest, StageStore


@dataclass(frozen=True)
class Tried:
    """A committed attempt. ``answer``: what was done about it, if it failed."""

    stage: PlannedStage
    manifest: Manifest
    pace: Pace
    answer: Restart | GiveUp | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps it took."""
        taken = self.manifest.metrics.steps_taken
        return self.stage.spec.steps if taken is None else taken

    @property
    def then(self) -> str:
        """What was done about it, in words."""
        if isinstance(self.answer, Restart):
            return f"restart {self.answer.number} from stage {self.answer.from_stage}: {self.answer.change}"
        return "the trial gave up"

    @cached_property
    def attempt(self) -> Attempt:
        """As the restart policy sees it."""
        metrics = self.manifest.metrics
        return Attempt(
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
    """Where a trial is. ``next``: the stage to adopt or to run now; None once the trial is over."""

    trial: Trial
    next: PlannedStage | None
    pace: Pace
    attempts: tuple[Tried, ...] = ()
    standing: tuple[Tried, ...] = ()
    """One for every stage that has passed, each the parent of the following."""
    furthest: tuple[Tried, ...] = ()
    """The most stages that ever stood: what a trial that gives up is left with, wherever it had gone back to."""

    @classmethod
    def begin(cls, trial: Trial) -> Chain:
        return cls(trial, trial.stages[0], Pace())

    @cached_property
    def history(self) -> History:
        """What the next stage is measured by: the good ones it stands on."""
        history = History()
        for tried in self.standing:
            if tried.manifest.verdict == "good":
                history = history.grown(tried.manifest.metrics.blocks)
        return history

    def restarts_before(self, tried: Tried) -> int:
        """How often the trial had been restarted when this attempt began."""
        return sum(earlier.answer is not None for earlier in self.attempts[: self.attempts.index(tried)])

    def steps_before(self, tried: Tried) -> int:
        """Optimizer steps of the stages that stood when this attempt began."""
        stood = {t.stage.index: t.steps for t in self.attempts[: self.attempts.index(tried)] if t.manifest.passed}
        return sum(steps for index, steps in stood.items() if index < tried.stage.index)

    @property
    def failures(self) -> tuple[Tried, ...]:
        return tuple(tried for tried in self.attempts if tried.answer)

    @property
    def restarts(self) -> int:
        return sum(isinstance(tried.answer, Restart) for tried in self.attempts)

    @property
    def obstacle(self) -> Tried | None:
        """Of a trial that gave up, the last attempt at the stage it did not get over."""
        at = [tried for tried in self.failures if tried.stage.index == len(self.standing)]
        return at[-1] if self.given_up and at else None

    @property
    def given_up(self) -> GiveUp | None:
        last = self.attempts[-1].answer if self.attempts else None
        return last if isinstance(last, GiveUp) else None

    @property
    def finished(self) -> bool:
        return len(self.standing) == len(self.trial.stages)

    def grown(self, manifest: Manifest) -> Chain:
        """With ``next`` committed, and what follows from its verdict."""
        if self.next is None:
            raise ValueError(f"{self.trial.name} is over")
        tried = Tried(self.next, manifest, self.pace)
        attempts = (*(earlier.attempt for earlier in self.attempts), tried.attempt)
        if manifest.passed:
            return self._onward(tried, attempts)
        move = next_move(attempts, self.trial.budget)
        tried = replace(tried, answer=move)
        if isinstance(move, GiveUp):
            return replace(self, next=None, attempts=(*self.attempts, tried), standing=self.furthest)
        kept = self.standing[: move.from_stage]
        stage = self._stage(kept, move.seed, move.pace, restart=True)
        return replace(self, next=stage, pace=move.pace, attempts=(*self.attempts, tried), standing=kept)

    def _onward(self, tried: Tried, attempts: tuple[Attempt, ...]) -> Chain:
        standing, pace = (*self.standing, tried), next_pace(attempts)
        stage = None
        if len(standing) < len(self.trial.stages):
            stage = self._stage(standing, next_seed(attempts, len(standing), self.trial.budget), pace, restart=False)
        furthest = max(standing, self.furthest, key=len)
        return replace(
            self, next=stage, pace=pace, attempts=(*self.attempts, tried), standing=standing, furthest=furthest
        )

    def _stage(self, standing: tuple[Tried, ...], seed: int, pace: Pace, *, restart: bool) -> PlannedStage:
        before = [tried.stage for tried in standing]
        return self.trial.stages[len(standing)].attempted(before, seed, pace, restart=restart)

    def advanced(self, store: StageStore) -> Chain:
        """With everything the store holds of it by now."""
        chain = self
        while chain.next and (manifest := store.manifest(chain.next)):
            chain = chain.grown(manifest)
        return chain


def replay(trial: Trial, store: StageStore) -> Chain:
    """The chain of a trial, from the store alone."""
    return Chain.begin(trial).advanced(store)


def replay_all(plan: Plan, store: StageStore) -> tuple[Chain, ...]:
    """The chains of a plan's trials, in plan order."""
    return tuple(replay(trial, store) for trial in plan.trials)


def standing_manifests(chains: Iterable[Chain]) -> dict[str, Manifest]:
    """What stands in the places of the planned stages, by their planned keys."""
    return {
        planned.key: tried.manifest
        for chain in chains
        for planned, tried in zip(chain.trial.stages, chain.standing, strict=False)
    }
