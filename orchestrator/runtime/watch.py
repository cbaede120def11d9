"""What a person sees while a job runs: one live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from orchestrator.stability import Restart
from orchestrator.store import Chain, Pruned, StageStore, Tried, pruned_trials, replay_all


@dataclass(frozen=True)
class TrialStatus:
    """Where a trial stands, as the store tells it."""

    chain: Chain
    progress: TrialProgress | None
    pruned: Pruned | None = None

    @property
    def label(self) -> str:
        """The trial in a table."""
        if not self.trial.settings:
            return self.trial.name
        return f"{self.trial.method} {symbols(self.trial.settings)}, seed {self.trial.seed}"

    @property
    def trial(self) -> Trial:
        return self.chain.trial

    @property
    def state(self) -> str:
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
    def restarts(self) -> int:
        return sum(isinstance(tried.answer, Restart) for tried in self.chain.attempts)

    @property
    def steps_done(self) -> int:
        return sum(tried.steps for tried in self.chain.standing) + (self.progress.step if self.progress else 0)

    @property
    def steps(self) -> int:
        """To the end, if the stages to come go as planned."""
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


def _status(chain: Chain, store: StageStore, since: float, pruned: Pruned | None) -> TrialStatus:
    """Progress older than ``since`` is of a command that has ended."""
    progress = ProgressFile(store.root, chain.trial.job.name, chain.trial.name).read()
    ours = progress and chain.next and progress.stage_key == chain.next.key and not pruned
    return TrialStatus(chain, progress if ours and progress.at >= since else None, pruned)


class Watch:
    """Shows a job's progress until the block ends. ``committed``: attempts seen at the last refresh."""

    def __init__(self, plan: Plan, store: StageStore, console: Console, since: float) -> None:
        self.plan, self.store, self.console, self.since = plan, store, console, since
        self._chains = replay_all(plan, store)
        self._said = Counter({chain.trial.name: len(chain.attempts) for chain in self._chains})
        self._said_pruned = set(pruned_trials(plan, store.root))
        self.committed = 0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Watch:
        if self._live:
            self._live.start()
        for chain in self._chains:
            if chain.attempts and not self._live:
                self.console.print(
                    f"{chain.trial.name}: {len(chain.standing)} of {len(chain.trial.stages)} stages are in the store"
                )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.refresh()
        if self._live:
            self._live.stop()

    def refresh(self) -> None:
        """Read the store and show what changed."""
        known = {chain.trial.name: chain for chain in self._chains}
        chains = (known.get(trial.name, Chain.begin(trial)) for trial in self.plan.trials)
        self._chains = tuple(chain.advanced(self.store) for chain in chains)
        self.committed = sum(len(chain.attempts) for chain in self._chains)
        pruned = pruned_trials(self.plan, self.store.root)
        rows = [_status(chain, self.store, self.since, pruned.get(chain.trial.name)) for chain in self._chains]
        if self._live:
            self._live.update(live_table(rows, self.console.height - 3), refresh=True)
            return
        for row in rows:
            name = row.trial.name
            for tried in row.chain.attempts[self._said[name] :]:
                self.console.print(_line(row.trial, tried), highlight=False, soft_wrap=True)
            self._said[name] = len(row.chain.attempts)
            if row.pruned and name not in self._said_pruned:
                self._said_pruned.add(name)
                self.console.print(f"{name}  pruned: {row.pruned.reason}", highlight=False, soft_wrap=True)


def live_table(rows: list[TrialStatus], height: int) -> Table:
    """One row a trial, 80 columns; of a search those in training first, and no more than fit the height."""
    if any(row.trial.settings for row in rows):
        return _search_table(sorted(rows, key=lambda row: row.state != "training"), max(height, 2))
    restarted = any(row.restarts for row in rows)
    headings = ("stage", "re-\nmoved", "exact\nmatch", "steps", "steps\n/s", "left")
    table = _table((*headings, *["re-\nstarts"] * restarted))
    for row in rows:
        rate = row.progress.steps_per_second if row.progress else None
        table.add_row(
            *_place(row),
            f"{row.steps_done:,}/{row.steps:,}",
            f"{rate:.1f}" if rate else "-",
            duration(row.seconds_left),
            *[str(row.restarts)] * restarted,
            row.state,
        )
    return table


def _search_table(rows: list[TrialStatus], height: int) -> Table:
    restarted = any(row.restarts for row in rows)
    table = _table(("stage", "removed", "exact match", "left", *["restarts"] * restarted))
    shown = rows if len(rows) <= height else rows[: height - 1]
    for row in shown:
        restarts = [str(row.restarts)] * restarted
        table.add_row(*_place(row), duration(row.seconds_left), *restarts, row.state)
    if hidden := Counter(row.state for row in rows[len(shown) :]):
        states = ", ".join(f"{number} {state}" for state, number in hidden.items())
        table.add_row(f"{hidden.total()} more: {states}")
    return table


def _table(numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", no_wrap=True, vertical="bottom")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("", no_wrap=True)
    return table


def _place(row: TrialStatus) -> tuple[str, str, str, str]:
    """Which trial, and how far it is."""
    metrics, progress = row.metrics, row.progress
    removed = progress.removed_tokens if progress else metrics.removed_tokens if metrics else 0
    return (
        row.label,
        f"{len(row.chain.standing)}/{len(row.trial.stages)}",
        f"{removed}/{row.trial.stages[0].spec.total_tokens}",
        f"{metrics.exact_match:.3f}" if metrics else "-",
    )


def _line(trial: Trial, tried: Tried) -> str:
    metrics, manifest = tried.manifest.metrics, tried.manifest
    line = f"{trial.name}  stage {tried.stage.index + 1}/{len(trial.stages)}"
    kind = tried.stage.spec.kind
    if kind != "train":
        line += f" ({kind.replace('_', ' ')})"
    if not manifest.passed:
        return f"{line}  {manifest.verdict}: {manifest.reason}; {_answer(trial, tried)}"
    line += f"  {metrics.removed_tokens}/{metrics.total_tokens} removed"
    if kind == "thought_emulation":
        line += f"  loss {metrics.validation_loss:.3g}"
    else:
        line += f"  exact match {metrics.exact_match:.3f}"
    if kind == "mind_reading":
        line += " given the teacher's thoughts"
    if metrics.after_removal:
        line += f" ({metrics.after_removal[-1].exact_match:.3f} right after the removal)"
    line += f"  {metrics.train_seconds:.0f} s"
    return f"{line}  suspect: {manifest.reason}" if manifest.verdict == "suspect" else line


def _answer(trial: Trial, tried: Tried) -> str:
    if not isinstance(tried.answer, Restart):
        return "gives up"
    place = f"stage {tried.answer.from_stage + 1}/{len(trial.stages)}"
    return f"restart {tried.answer.number} from {place}: {tried.answer.change}"
