"""The progress of a job that runs: one live table on a terminal, plain lines in a pipe."""

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
"""The stages whose exact match the live table draws."""
STATES = ("training", "waiting", "done", "gave up", "pruned")
MOST_LINES = 12
"""The trials that a pipe is told of one by one at the beginning."""
_MAY_HANG = "; if its worker hangs, Ctrl-C and the same command go on from what is committed"


def _status(chain: Chain, store: StageStore, since: float, pruned: Pruned | None) -> TrialStatus:
    """Return where a trial stands. Progress older than ``since`` is that of a command which has ended."""
    progress = ProgressFile(store.root, chain.trial.job.name, chain.trial.name).read()
    if pruned or not progress or not chain.next or progress.stage_key != chain.next.key or progress.at < since:
        progress = None
    return TrialStatus(chain, progress, pruned)


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
            adopted = [chain for chain in self.running.chains if chain.attempts]
            if len(adopted) > MOST_LINES:
                stages = count(sum(len(chain.standing) for chain in adopted), "stage")
                self.console.print(f"{stages} of {len(adopted)} trials are in the store")
                return self
            for chain in adopted:
                stages = f"{len(chain.standing)} of {len(chain.trial.stages)} stages"
                self.console.print(f"{chain.trial.name}: {stages} are in the store")
        return self

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
            if row.quiet_seconds and row.progress and (name, row.progress.at) not in self._said_quiet:
                self._said_quiet.add((name, row.progress.at))
                self.console.print(f"{name}  {quiet(row)}{_MAY_HANG}", highlight=False, soft_wrap=True)


def live_table(rows: Sequence[TrialStatus], height: int) -> Group:
    """Return one row a trial, those in training first, no more than fit the height; then their sum in one line.

    The table stays within 80 columns.
    """
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
        schedule, total = row.trial.job.schedule, row.trial.stages[0].spec.total_tokens
        pace = [f"{schedule.tokens_per_stage:g}", f"{schedule.smoothing_lambda:g}"]
        left = "" if row.state in ("done", "gave up", "pruned") else duration(row.seconds_left)
        state = quiet(row) or row.state
        if row.state == "waiting":  # for a stage that another trial is training, or for a place on the machine
            state = "waits: stage" if row.chain.next and row.chain.next.key in busy else "waits: place"
        ends = [tried.manifest.metrics.exact_match for tried in row.chain.standing if tried.stage.spec.answers]
        table.add_row(
            SHORT_LABELS[row.trial.method],
            *settings,
            *(pace if row.trial.method == "stepwise" else ["", ""]),
            str(row.trial.seed),
            f"{len(row.chain.standing)}/{len(row.trial.stages)}",
            f"{row.removed_tokens}/{total}",
            *speed,
            left,
            *restarts,
            f"{ends[-1]:.3f} {sparkline(ends, TREND)}" if ends else "-",
            state,
        )
    return Group(table, _sum(rows, len(rows) - len(shown)))


def quiet(row: TrialStatus) -> str:
    """Say that a trial in training may hang, if it seems so."""
    return f"no step: {duration(row.quiet_seconds)}" if row.quiet_seconds else ""


def _other_settings(trial: Trial) -> str:
    """Return the values that the search set besides Δ and λ."""
    own = ("schedule.tokens_per_stage", "schedule.smoothing_lambda")
    return symbols(tuple(setting for setting in trial.settings if setting[0] not in own))


def _sum(rows: Sequence[TrialStatus], hidden: int) -> str:
    """Return all trials in one line, however many there are."""
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
    """Return an attempt in one line for a pipe."""
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
