"""Where a job stands, from the store alone: for any terminal, whether or not anything runs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.table import Table

from orchestrator.errors import InputError, Problem, StoreError
from orchestrator.labels import count, duration
from orchestrator.method.stage import Record
from orchestrator.runtime.watch import TrialStatus
from orchestrator.store import StageStore, jobs_like, pruned_trials, saved_names, saved_plan
from orchestrator.trials.chain import Chain, replay_all
from orchestrator.trials.progress import ProgressFile, TrialProgress

MOST_ROWS = 60


class TrialState(Record):
    """A trial of a job."""

    trial: str
    method: str
    seed: int
    state: Literal["done", "gave up", "pruned", "training", "waiting"]
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
    """Of a trial in training that has shown no step for too long."""


class JobState(Record):
    """A job and all its trials, as `stepwise status --json` gives them.

    ``unfinished``: something is left to do and nobody does it.
    """

    job: str
    state: Literal["finished", "training", "unfinished"]
    configurations_to_propose: int
    trials: tuple[TrialState, ...]

    @property
    def words(self) -> str:
        """The state, with what Optuna has yet to name."""
        left = self.configurations_to_propose
        return f"{self.state}, {count(left, 'configuration')} to propose" if left else self.state


def job_state(job: str, store: StageStore) -> JobState:
    """A job as the store knows it. Raises ``InputError`` if no job of this name ran on the store."""
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


def state_table(state: JobState) -> Table:
    """One row a trial, those in training first, and no more than fit a screen or two."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", no_wrap=True)
    for heading in ("stages", "removed", "exact match", "steps", "left", "restarts"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    trials = sorted(state.trials, key=lambda trial: trial.state != "training")
    for trial in trials[:MOST_ROWS]:
        table.add_row(
            trial.trial,
            f"{trial.stages_done}/{trial.stages}",
            f"{trial.removed_tokens}/{trial.total_tokens}",
            f"{trial.exact_match:.3f}" if trial.exact_match is not None else "-",
            f"{trial.steps_done:,}/{trial.steps:,}",
            duration(trial.seconds_left),
            str(trial.restarts),
            f"no step: {duration(trial.quiet_seconds)}" if trial.quiet_seconds else trial.state,
        )
    if hidden := Counter(trial.state for trial in trials[MOST_ROWS:]):
        table.add_row(f"{hidden.total()} more: {', '.join(f'{number} {state}' for state, number in hidden.items())}")
    return table


def show_jobs(store: StageStore, console: Console, *, as_json: bool) -> int:
    """Print where every job of a store stands, and why not of one that cannot be read. Returns the exit code.

    Raises ``InputError`` if none ran on the store.
    """
    names = saved_names(store)
    if not names:
        found = "no job ran on this store" if store.root.is_dir() else "no such folder"
        fix = "run a job first, or name a store with --store"
        raise InputError(Problem("STO002", str(store.root), found, fix))
    states, unread = [], []
    for name in names:
        try:
            states.append(job_state(name, store))
        except (InputError, StoreError) as error:
            unread.append(f"{name}: {error}")
    if as_json:
        print(json.dumps([state.model_dump(mode="json") for state in states], indent=1))
    else:
        console.print(_jobs_table(states))
    for line in unread:
        print(line, file=sys.stderr)
    return int(bool(unread))


def _jobs_table(states: Iterable[JobState]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job", no_wrap=True)
    for heading in ("trials", "done", "pruned", "gave up", "restarts"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for state in states:
        ended = Counter(trial.state for trial in state.trials)
        restarts = sum(trial.restarts for trial in state.trials)
        counts = (len(state.trials), ended["done"], ended["pruned"], ended["gave up"], restarts)
        table.add_row(state.job, *map(str, counts), state.words)
    return table


def _progress(chain: Chain, store: StageStore) -> TrialProgress | None:
    """Of a trial that a live process is at. A claim is held as long as its process lives."""
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
