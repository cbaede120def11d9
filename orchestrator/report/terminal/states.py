"""The state of jobs and their trials, on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.table import Table

from orchestrator.labels import duration
from orchestrator.results.state import JobState

MOST_ROWS = 60
"""The rows that fit a screen or two."""


def state_table(state: JobState) -> Table:
    """Return one row a trial, those in training first; no more than ``MOST_ROWS``, then a sum of the others."""
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


def jobs_table(states: Iterable[JobState]) -> Table:
    """Return one row a job."""
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
