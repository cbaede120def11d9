"""Runs a job: trains what is missing, records it, reports it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.console import Console

from orchestrator.commands.given import QUIET, is_name, short, whole_plan
from orchestrator.commands.mirroring import Mirroring
from orchestrator.commands.report import findings_of, print_ending, report_folder, written_report
from orchestrator.commands.webhook import Webhook
from orchestrator.errors import INTERRUPTED, StepwiseError, TrialError
from orchestrator.labels import count
from orchestrator.plan import Plan
from orchestrator.ray.joined import Attachment
from orchestrator.ray.tune import run_trials
from orchestrator.report.terminal.live import Watch
from orchestrator.results.frontier import points_of
from orchestrator.shown import command
from orchestrator.store import StageStore, pruned_trials, save_job, saved_job, sweep
from orchestrator.tracking import BackgroundTracker, Tracker, unused_uri
from orchestrator.trials.drift import other_fields, refuse_drift
from orchestrator.trials.running import RunningJob

DONE, FAILED, PARTIAL = 0, 1, 3
INTERRUPTED_SECONDS = 10.0
"""After Ctrl-C: for what MLflow, and then the mirror, have not got yet."""
TRACKING_SECONDS = 60.0
"""When training ended by itself: for what MLflow has not got."""
UPLOAD_SECONDS = 900.0
"""For what the mirror has not got then: weights may be large, the machine soon gone."""


def run_job(
    path: Path,
    overrides: tuple[str, ...],
    root: Path,
    console: Console,
    at: Attachment | None = None,
    *,
    accept_drift: bool = False,
    mirror_url: str | None = None,
) -> int:
    """Train what is missing, record it, report it. Returns the exit code.

    On a Ray of its own, or ``at`` a running one. ``mirror_url``: where else committed stages are, and go.
    """
    os.environ.update(QUIET)
    store = StageStore(root)
    mirroring = Mirroring(mirror_url, store, console)
    plan = whole_plan(path, overrides, store, mirroring, at)
    running = RunningJob(plan, store)
    refuse_drift(running, accept=accept_drift)
    if not is_name(path) or overrides or _read_anew(plan, store):
        if lines := other_fields(plan, store):
            console.print(f"{plan.job.name} was run before with other settings ({'; '.join(lines)}).")
            console.print("The name now means this job. The earlier job's stages stay, and are used where they fit.")
        save_job(plan, store)
    return run_plan(running, console, mirroring, at)


def _read_anew(plan: Plan, store: StageStore) -> bool:
    """Return whether the plan was made of other data, or another model, than the saved job of its name remembers."""
    saved = saved_job(plan.job.name, store)
    return saved is not None and not saved.chain and saved.read != plan.content


def run_plan(running: RunningJob, console: Console, mirroring: Mirroring, at: Attachment | None = None) -> int:
    """Train what a job's plan lacks, record it, report it. Returns the exit code."""
    started, plan, store, job = time.time(), running.plan, running.store, running.plan.job
    unused = unused_uri(job.tracking.uri)
    sweep(store.root)
    console.print(
        f"{job.name}: {count(len(plan.trials), 'trial')}, {count(len(plan.unique_stages), 'stage')}, "
        f"{sum(trial.steps for trial in plan.trials):,} steps; store {short(store.root)}"
    )
    if plan.to_propose:
        console.print(f"{count(plan.to_propose, 'configuration')} more to be proposed")
    if running.left:
        doing = f"attaching to the Ray at {at.address}" if at else "starting Ray"
        console.print(f"{doing}; the first step comes in about half a minute")
    records = Tracker(plan, store, running.chains)
    tracker = BackgroundTracker(records, console.print)
    tracker.start()
    if points_of(running.chains):
        tracker.notify()
    webhook = Webhook(plan, store, console.print, running.chains)
    webhook.start()
    mirroring.begin(plan, running.chains)
    upload, tracking = INTERRUPTED_SECONDS, INTERRUPTED_SECONDS
    try:
        code = _train(running, tracker, mirroring, webhook, console, started, at)
        upload, tracking = UPLOAD_SECONDS, TRACKING_SECONDS
        if points_of(running.chains):
            findings, folder = findings_of(running.plan, store, running.chains), report_folder(running.plan, store)
            said = written_report(findings, folder)
            tracker.finish(folder)
            # last: whatever becomes of what is printed, the records are complete
            print_ending(findings, said, console)
    except BaseException as error:
        code = _code_of(error)
        raise
    finally:
        mirroring.close(upload)
        if not tracker.close(tracking):
            later = command("track", job.name, "--store", short(store.root))
            console.print(f"MLflow has not got everything; later: {later}")
        webhook.end(code)
    ui = command("ui", "--store", short(store.root))
    console.print(f"MLflow   {records.page() or job.tracking.uri or ui}")
    if unused:
        console.print(unused)
    return code


def _code_of(error: BaseException) -> int:
    """The exit code of a command that this ends."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, StepwiseError) else FAILED


def _train(
    running: RunningJob,
    tracker: BackgroundTracker,
    mirroring: Mirroring,
    webhook: Webhook,
    console: Console,
    started: float,
    at: Attachment | None,
) -> int:
    """Run the trials. Returns the exit code."""
    seen, followed = 0, running.plan

    def tick() -> None:
        nonlocal seen, followed
        watch.refresh()
        if running.plan is not followed:
            followed = running.plan
            tracker.follow(followed)
            webhook.follow(followed)
        if (committed := sum(len(chain.attempts) for chain in running.chains)) > seen:
            seen = committed
            tracker.notify()
            webhook.notify()
            mirroring.follow(running.plan)

    try:
        with Watch(running, console, started) as watch:
            run_trials(running, tick, at)
    except TrialError as error:
        console.print(str(error), style="red")
    for chain in running.chains:
        if chain.given_up:
            console.print(f"{chain.trial.name} gave up: {chain.given_up.reason}. What was tried:")
            for line in chain.given_up.ladder_tried:
                console.print(f"  {line}", soft_wrap=True)
    pruned = pruned_trials(running.plan, running.store.root)
    if not running.plan.to_propose and all(c.finished or c.trial.name in pruned for c in running.chains):
        return DONE
    return PARTIAL if any(chain.standing for chain in running.chains) else FAILED
