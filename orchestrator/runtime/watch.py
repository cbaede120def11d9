"""What a person sees while a job runs: one live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.method.stage import StageMetrics
from orchestrator.plan import Plan, Trial
from orchestrator.report.text import duration
from orchestrator.runtime.progress import ProgressFile, TrialProgress
from orchestrator.space import symbols
from orchestrator.store import Manifest, Pruned, StageStore, pruned_trials


@dataclass(frozen=True)
class TrialStatus:
    """Where a trial stands, as the store tells it."""

    trial: Trial
    committed: tuple[Manifest, ...]
    progress: TrialProgress | None
    pruned: Pruned | None = None

    @property
    def label(self) -> str:
        """The trial in a table."""
        if not self.trial.settings:
            return self.trial.name
        return f"{self.trial.method} {symbols(self.trial.settings)}, seed {self.trial.seed}"

    @property
    def state(self) -> str:
        if self.pruned:
            return "pruned"
        if self.committed and self.committed[-1].verdict != "good":
            return self.committed[-1].verdict
        if len(self.committed) == len(self.trial.stages):
            return "done"
        return "training" if self.progress else "waiting"

    @property
    def metrics(self) -> StageMetrics | None:
        return self.committed[-1].metrics if self.committed else None

    @property
    def steps_done(self) -> int:
        done = sum(stage.spec.steps for stage in self.trial.stages[: len(self.committed)])
        return done + (self.progress.step if self.progress else 0)

    @property
    def seconds_left(self) -> float | None:
        if not self.progress or not self.progress.steps_per_second:
            return None
        return (self.trial.steps - self.steps_done) / self.progress.steps_per_second


def status(plan: Plan, store: StageStore, since: float = 0.0) -> list[TrialStatus]:
    """Every trial of the plan. Progress older than ``since`` is of a command that has ended."""
    pruned = pruned_trials(plan, store.root)
    return [_status(trial, store, since, pruned.get(trial.name)) for trial in plan.trials]


def _status(trial: Trial, store: StageStore, since: float, pruned: Pruned | None) -> TrialStatus:
    committed: list[Manifest] = []
    for stage in trial.stages:
        if manifest := store.manifest(stage):
            committed.append(manifest)
        else:
            break
    progress = ProgressFile(store.root, trial.job.name, trial.name).read()
    current = progress if progress and progress.stage == len(committed) and progress.at >= since else None
    return TrialStatus(trial, tuple(committed), None if pruned else current, pruned)


class Watch:
    """Shows a job's progress until the block ends. ``committed``: stages seen at the last refresh."""

    def __init__(self, plan: Plan, store: StageStore, console: Console, since: float) -> None:
        self.plan, self.store, self.console, self.since = plan, store, console, since
        self._said = Counter({s.trial.name: len(s.committed) for s in status(plan, store)})
        self._said_pruned = set(pruned_trials(plan, store.root))
        self.committed = 0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Watch:
        if self._live:
            self._live.start()
        for trial in self.plan.trials:
            if self._said[trial.name] and not self._live:
                self.console.print(
                    f"{trial.name}: {self._said[trial.name]} of {len(trial.stages)} stages are in the store"
                )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.refresh()
        if self._live:
            self._live.stop()

    def refresh(self) -> None:
        """Read the store and show what changed."""
        rows = status(self.plan, self.store, self.since)
        self.committed = sum(len(row.committed) for row in rows)
        if self._live:
            self._live.update(live_table(rows, self.console.height - 3), refresh=True)
            return
        for row in rows:
            for line in _lines(row, self._said[row.trial.name]):
                self.console.print(line, highlight=False, soft_wrap=True)
            self._said[row.trial.name] = len(row.committed)
            if row.pruned and row.trial.name not in self._said_pruned:
                self._said_pruned.add(row.trial.name)
                self.console.print(f"{row.trial.name}  pruned: {row.pruned.reason}", highlight=False, soft_wrap=True)


def live_table(rows: list[TrialStatus], height: int) -> Table:
    """One row a trial, 80 columns; of a search those in training first, and no more than fit the height."""
    if any(row.trial.settings for row in rows):
        return _search_table(sorted(rows, key=lambda row: row.state != "training"), max(height, 2))
    table = _table(("stage", "removed", "exact match", "steps", "steps/s", "left"))
    for row in rows:
        rate = row.progress.steps_per_second if row.progress else None
        table.add_row(
            *_place(row),
            f"{row.steps_done:,}/{row.trial.steps:,}",
            f"{rate:.1f}" if rate else "-",
            duration(row.seconds_left),
            row.state,
        )
    return table


def _search_table(rows: list[TrialStatus], height: int) -> Table:
    table = _table(("stage", "removed", "exact match", "left"))
    shown = rows if len(rows) <= height else rows[: height - 1]
    for row in shown:
        table.add_row(*_place(row), duration(row.seconds_left), row.state)
    if hidden := Counter(row.state for row in rows[len(shown) :]):
        states = ", ".join(f"{number} {state}" for state, number in hidden.items())
        table.add_row(f"{hidden.total()} more: {states}")
    return table


def _table(numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _place(row: TrialStatus) -> tuple[str, str, str, str]:
    """Which trial, and how far it is."""
    metrics, progress = row.metrics, row.progress
    removed = progress.removed_tokens if progress else metrics.removed_tokens if metrics else 0
    return (
        row.label,
        f"{len(row.committed)}/{len(row.trial.stages)}",
        f"{removed}/{row.trial.stages[0].spec.total_tokens}",
        f"{metrics.exact_match:.3f}" if metrics else "-",
    )


def _lines(row: TrialStatus, said: int) -> Iterator[str]:
    for index, manifest in enumerate(row.committed[said:], said):
        metrics = manifest.metrics
        line = f"{row.trial.name}  stage {index + 1}/{len(row.trial.stages)}"
        if manifest.verdict != "good":
            yield f"{line}  {manifest.verdict}: {manifest.reason}"
            continue
        line += f"  {metrics.removed_tokens}/{metrics.total_tokens} removed  exact match {metrics.exact_match:.3f}"
        if metrics.after_removal:
            line += f" ({metrics.after_removal[-1].exact_match:.3f} right after the removal)"
        yield f"{line}  {metrics.train_seconds:.0f} s"
