"""What a person sees while a job runs: one live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from orchestrator.labels import SHORT_LABELS, count, duration
from orchestrator.plan import Trial
from orchestrator.plan.grid import symbols
from orchestrator.report.terminal.chart import sparkline
from orchestrator.results.state import TrialStatus
from orchestrator.store import Pruned, StageStore, pruned_trials
from orchestrator.trials.chain import Attempt, Chain
from orchestrator.trials.progress import ProgressFile
from orchestrator.trials.running import RunningJob

TREND = 7
"""Stages whose exact match the live table draws."""
STATES = ("training", "waiting", "done", "gave up", "pruned")
MOST_LINES = 12
"""Trials that a pipe is told of one by one at the beginning."""
_MAY_HANG = "; if its worker hangs, Ctrl-C and the same command go on from what is committed"


def _status(chain: Chain, store: StageStore, since: float, pruned: Pruned | None) -> TrialStatus:
    """Progress older than ``since`` is of a command that has ended."""
    progress = ProgressFile(store.root, chain.trial.job.name, chain.trial.name).read()
    ours = progress and chain.next and progress.stage_key == chain.next.key and not pruned
    return TrialStatus(chain, progress if ours and progress.at >= since else None, pruned)


class Watch:
    """Shows a job's progress until the block ends. It leaves out what happened before ``since``, in seconds since the
    epoch.
    """

    def __init__(self, running: RunningJob, console: Console, since: float) -> None:
        self.running, self.console, self.since = running, console, since
        self._said = Counter({chain.trial.name: len(chain.attempts) for chain in running.chains})
        self._said_pruned = set(pruned_trials(running.plan, running.store.root))
        self._said_quiet: set[tuple[str, float]] = set()
        self._said_begun = False
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False) if live else None

    def __enter__(self) -> Watch:
        if self._live:
            self._live.start()
        else:
            self._tell_adopted([chain for chain in self.running.chains if chain.attempts])
        return self

    def _tell_adopted(self, chains: Sequence[Chain]) -> None:
        if len(chains) > MOST_LINES:
            stages = count(sum(len(chain.standing) for chain in chains), "stage")
            self.console.print(f"{stages} of {len(chains)} trials are in the store")
            return
        for chain in chains:
            stages = f"{len(chain.standing)} of {len(chain.trial.stages)} stages"
            self.console.print(f"{chain.trial.name}: {stages} are in the store")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.refresh()
        finally:
            if self._live:
                self._live.stop()

    def refresh(self) -> None:
        """Read the store and show what changed."""
        self.running.look()
        store, chains = self.running.store, self.running.chains
        pruned = pruned_trials(self.running.plan, store.root)
        rows = [_status(chain, store, self.since, pruned.get(chain.trial.name)) for chain in chains]
        if self._live:
            self._live.update(live_table(rows, self.console.height - 5), refresh=True)
            return
        if not self._said_begun and any(row.progress for row in rows):
            self._said_begun = True
            self.console.print(f"training began after {duration(time.time() - self.since)}; a line for every stage:")
        for row in rows:
            name = row.trial.name
            for tried in row.chain.attempts[self._said[name] :]:
                self.console.print(_line(row.trial, tried), highlight=False, soft_wrap=True)
            self._said[name] = len(row.chain.attempts)
            if row.pruned and name not in self._said_pruned:
                self._said_pruned.add(name)
                self.console.print(f"{name}  pruned: {row.pruned.reason}", highlight=False, soft_wrap=True)
            if row.quiet_seconds and (name, row.progress.at) not in self._said_quiet:
                self._said_quiet.add((name, row.progress.at))
                self.console.print(f"{name}  {quiet(row)}{_MAY_HANG}", highlight=False, soft_wrap=True)


def live_table(rows: Sequence[TrialStatus], height: int) -> Group:
    """One row a trial, those in training first, no more than fit the height, within 80 columns; then their sum."""
    ordered = sorted(rows, key=lambda row: row.state != "training")
    shown = ordered if len(ordered) <= height else ordered[: max(height - 1, 1)]
    busy = {row.progress.stage_key for row in rows if row.progress}
    others = any(_other_settings(row.trial) for row in rows)
    restarted = any(row.chain.restarts for row in rows)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("trial", no_wrap=True, vertical="bottom")
    if others:
        table.add_column("settings", no_wrap=True, vertical="bottom", max_width=16)
    last = ["left", *["re-\nstarts"] * restarted]
    for heading in ("Δ", "λ", "seed", "stages", "re-\nmoved", *["steps\n/s"] * (not others), *last):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("exact\nmatch", no_wrap=True, vertical="bottom")
    table.add_column("", no_wrap=True)
    for row in shown:
        settings = [_other_settings(row.trial)] * others
        rate = row.progress.steps_per_second if row.progress else None
        speed = [f"{rate:.1f}" if rate else "-"] * (not others)
        restarts = [str(row.chain.restarts or "")] * restarted
        waits = _waits_for(row, busy) if row.state == "waiting" else quiet(row) or row.state
        table.add_row(*_what(row.trial, settings), *_place(row), *speed, _left(row), *restarts, _trend(row), waits)
    return Group(table, _sum(rows, len(rows) - len(shown)))


def quiet(row: TrialStatus) -> str:
    """That a trial in training may hang, if it seems so."""
    return f"no step: {duration(row.quiet_seconds)}" if row.quiet_seconds else ""


def _what(trial: Trial, settings: list[str]) -> tuple[str, ...]:
    """Which trial it is."""
    schedule, stepwise = trial.job.schedule, trial.method == "stepwise"
    delta, smoothing = f"{schedule.tokens_per_stage:g}", f"{schedule.smoothing_lambda:g}"
    label = SHORT_LABELS[trial.method]
    return (label, *settings, *((delta, smoothing) if stepwise else ("", "")), str(trial.seed))


def _other_settings(trial: Trial) -> str:
    """What the search set besides Δ and λ."""
    own = ("schedule.tokens_per_stage", "schedule.smoothing_lambda")
    return symbols(tuple(setting for setting in trial.settings if setting[0] not in own))


def _place(row: TrialStatus) -> tuple[str, str]:
    """How far a trial is."""
    total = row.trial.stages[0].spec.total_tokens
    return f"{len(row.chain.standing)}/{len(row.trial.stages)}", f"{row.removed_tokens}/{total}"


def _left(row: TrialStatus) -> str:
    return "" if row.state in ("done", "gave up", "pruned") else duration(row.seconds_left)


def _trend(row: TrialStatus) -> str:
    """The last exact match, and a bar for each of the last stages."""
    shares = [tried.manifest.metrics.exact_match for tried in row.chain.standing if tried.stage.spec.answers]
    return f"{shares[-1]:.3f} {sparkline(shares, TREND)}" if shares else "-"


def _waits_for(row: TrialStatus, busy: set[str]) -> str:
    """A stage that another trial is training, or a place on the machine."""
    shared = row.chain.next and row.chain.next.key in busy
    return "waits: stage" if shared else "waits: place"


def _sum(rows: Sequence[TrialStatus], hidden: int) -> str:
    """All trials in one line: calm however many there are."""
    states = Counter(row.state for row in rows)
    parts = [f"{count(len(rows), 'trial')}: {', '.join(f'{states[s]} {s}' for s in STATES if states[s])}"]
    if restarts := sum(row.chain.restarts for row in rows):
        parts.append(count(restarts, "restart"))
    rate = sum(row.progress.steps_per_second for row in rows if row.progress)
    if rate:
        left = sum(row.steps - row.steps_done for row in rows if row.state in ("training", "waiting"))
        parts.append(f"about {duration(left / rate)} left")
    if hidden:
        parts.append(f"{hidden} not shown")
    return "; ".join(parts)


def _line(trial: Trial, tried: Attempt) -> str:
    metrics, manifest = tried.manifest.metrics, tried.manifest
    line = f"{trial.name}  stage {tried.stage.index} of {len(trial.stages)}"
    kind = tried.stage.spec.kind
    if kind != "train":
        line += f" ({kind.replace('_', ' ')})"
    if not manifest.passed:
        return f"{line}  {manifest.verdict}: {manifest.reason}; {tried.then}"
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
