"""The state of a job, from the store alone: for any terminal, whether or not anything runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import InputError, Problem
from orchestrator.labels import count
from orchestrator.method.stage import Record, StageMetrics
from orchestrator.plan import Trial
from orchestrator.store import Pruned, StageStore, jobs_like, pruned_trials, saved_plan
from orchestrator.trials.chain import Chain
from orchestrator.trials.progress import ProgressFile, TrialProgress
from orchestrator.trials.walk import replay_all

StateWord = Literal["done", "gave up", "pruned", "training", "waiting"]


class TrialState(Record):
    """A trial of a job."""

    trial: str
    method: str
    seed: int
    state: StateWord
    stages_done: int
    stages: int
    removed_tokens: int
    total_tokens: int
    exact_match: float | None
    restarts: int
    steps_done: int
    steps: int
    seconds_left: float | None
    quiet_seconds: float | None = None
    """The seconds since the last step of a trial in training, if they are too many."""


class JobState(Record):
    """A job and all its trials, as `stepwise status --json` gives them.

    ``unfinished``: something is left to do and no process does it.
    """

    job: str
    state: Literal["finished", "training", "unfinished"]
    configurations_to_propose: int
    trials: tuple[TrialState, ...]

    @property
    def words(self) -> str:
        """The state, with the number of configurations that Optuna has yet to name."""
        left = self.configurations_to_propose
        return f"{self.state}, {count(left, 'configuration')} to propose" if left else self.state


def job_state(job: str, store: StageStore) -> JobState:
    """Return a job as the store knows it. Raises ``InputError`` if no job of this name ran on the store."""
    plan = saved_plan(job, store)
    if plan is None:
        found = f"no job named {job} ran on this store"
        raise InputError(Problem("STO002", str(store.root), found, jobs_like(job, store)))
    pruned = pruned_trials(plan, store.root)
    trials = tuple(
        _state(TrialStatus(chain, _progress(chain, store), pruned.get(chain.trial.name)))
        for chain in replay_all(plan, store)
    )
    states = {trial.state for trial in trials}
    left = "waiting" in states or plan.to_propose
    return JobState(
        job=job,
        state="training" if "training" in states else "unfinished" if left else "finished",
        configurations_to_propose=plan.to_propose,
        trials=trials,
    )


def _progress(chain: Chain, store: StageStore) -> TrialProgress | None:
    """Return the progress of a trial that a live process is at: a claim is held as long as its process lives."""
    if chain.next is None or not store.claimed(chain.next.key):
        return None
    progress = ProgressFile(store.root, chain.trial.job.name, chain.trial.name).read()
    return progress if progress and progress.stage_key == chain.next.key else None


def _state(row: TrialStatus) -> TrialState:
    return TrialState(
        trial=row.trial.name,
        method=row.trial.method,
        seed=row.trial.seed,
        state=row.state,
        stages_done=len(row.chain.standing),
        stages=len(row.trial.stages),
        removed_tokens=row.removed_tokens,
        total_tokens=row.trial.stages[0].spec.total_tokens,
        exact_match=row.metrics.exact_match if row.metrics else None,
        restarts=row.chain.restarts,
        steps_done=row.steps_done,
        steps=row.steps,
        seconds_left=row.seconds_left,
        quiet_seconds=row.quiet_seconds,
    )


@dataclass(frozen=True)
class TrialStatus:
    """A trial's place on its way, as the store tells it."""

    chain: Chain
    progress: TrialProgress | None
    pruned: Pruned | None = None

    @property
    def trial(self) -> Trial:
        return self.chain.trial

    @property
    def state(self) -> StateWord:
        if self.pruned:
            return "pruned"
        if self.chain.given_up:
            return "gave up"
        if self.chain.next is None:
            return "done"
        return "training" if self.progress else "waiting"

    @property
    def metrics(self) -> StageMetrics | None:
        standing = [tried for tried in self.chain.standing if tried.stage.spec.answers]
        return standing[-1].manifest.metrics if standing else None

    @property
    def removed_tokens(self) -> int:
        """The tokens scheduled for removal now, else those of the last stage that stands."""
        if self.progress:
            return self.progress.removed_tokens
        return self.metrics.removed_tokens if self.metrics else 0

    @property
    def steps_done(self) -> int:
        return sum(tried.steps for tried in self.chain.standing) + (self.progress.step if self.progress else 0)

    @property
    def steps(self) -> int:
        """The steps to the end, if the stages to come go as planned."""
        to_come = self.trial.stages[len(self.chain.standing) :]
        planned = sum(stage.spec.steps for stage in to_come)
        if self.chain.next:
            planned += self.chain.next.spec.steps - to_come[0].spec.steps
        return sum(tried.steps for tried in self.chain.standing) + planned

    @property
    def seconds_left(self) -> float | None:
        if not self.progress or not self.progress.steps_per_second:
            return None
        return (self.steps - self.steps_done) / self.progress.steps_per_second

    @property
    def quiet_seconds(self) -> float | None:
        """The seconds since the last step of a trial in training, if they are too many."""
        if self.state != "training" or not self.progress or not self.chain.next:
            return None
        return self.progress.quiet_seconds(self.chain.next.spec.steps, time.time())
