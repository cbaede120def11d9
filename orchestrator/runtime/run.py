"""What the verbs do: run a job, grow it, report it, track it."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from itertools import count as count_up
from itertools import islice
from pathlib import Path

from rich.console import Console

from orchestrator.config import NAME, Job, load_job, parse_setting
from orchestrator.errors import FORBIDDEN, INTERRUPTED, InputError, Problem, StepwiseError, TrialError
from orchestrator.fork import fork_plan
from orchestrator.plan import Plan, PlannedStage, Trial, build_plan
from orchestrator.report import write_report
from orchestrator.report.ending import ending
from orchestrator.report.findings import Findings
from orchestrator.report.words import count
from orchestrator.runtime.attach import Attachment, check_address
from orchestrator.runtime.cluster import concurrent_trials, socket_folder
from orchestrator.runtime.drift import other_fields, refuse_drift, refuse_other_job, refuse_other_origin
from orchestrator.runtime.mirroring import Mirroring
from orchestrator.runtime.notify import Webhook
from orchestrator.runtime.order import open_trials
from orchestrator.runtime.search import run_trials
from orchestrator.runtime.watch import Watch
from orchestrator.shown import command
from orchestrator.store import (
    StageStore,
    check_fork_name,
    find_stage,
    frontier,
    is_fork,
    job_folder,
    jobs_like,
    plan_for,
    proposals,
    pruned_trials,
    replay_all,
    save_fork,
    save_job,
    saved_added_seeds,
    saved_job,
    saved_plan,
    sweep,
)
from orchestrator.tracking import BackgroundTracker, Tracker, unused_uri

DONE, FAILED, PARTIAL = 0, 1, 3
INTERRUPTED_SECONDS = 10.0
"""After Ctrl-C: for what MLflow, and then the mirror, have not got yet."""
TRACKING_SECONDS = 60.0
"""When training ended by itself: for what MLflow has not got."""
UPLOAD_SECONDS = 900.0
"""For what the mirror has not got then: weights may be large, the machine soon gone."""
FOLDERS = ("stages", "jobs", "data", "ray")
"""Of a store: what a run writes into."""

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


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
    os.environ.update(_QUIET)
    store = StageStore(root)
    mirroring = Mirroring(mirror_url, store, console)
    plan = _whole_plan(path, overrides, store, mirroring, at)
    refuse_drift(plan, store, accept=accept_drift)
    if not _is_name(path) or _read_anew(plan, store):
        if lines := other_fields(plan, store):
            console.print(f"{plan.job.name} ran otherwise before ({'; '.join(lines)}): it is this job from now on;")
            console.print("what it had trained stays, and whoever runs it as it was has it back")
        save_job(plan, store)
    return _run(plan, store, console, mirroring, at)


def _whole_plan(
    path: Path,
    overrides: tuple[str, ...],
    store: StageStore,
    mirroring: Mirroring,
    at: Attachment | None = None,
    *,
    extends: bool = False,
) -> Plan:
    """The plan of a job's file or name, once what the mirror holds of it is here. Raises ``InputError``.

    Of a saved job with nothing left to train as it was remembered, unless the command ``extends`` it.
    """
    if _is_name(path):
        _check_writable(store.root)
        mirroring.bring_records(str(path))
    if plan := named_plan(path, overrides, store):
        _check_room(plan.job, at)
        mirroring.bring_stages(plan)
        return _with_its_data(plan, store) if extends or plan.to_propose or open_trials(plan, store) else plan
    job = checked_job(path, overrides, store.root, at)
    mirroring.bring_records(job.name)
    plan = _prepared_plan(job, store)
    mirroring.bring_stages(plan)
    return plan


def _with_its_data(plan: Plan, store: StageStore) -> Plan:
    """The plan of a saved job that is to train, with its data and model as they are now. Raises ``InputError``."""
    if not is_fork(plan.job.name, store):
        return _prepared_plan(plan.job, store)
    refuse_other_origin(plan)
    return plan


def _read_anew(plan: Plan, store: StageStore) -> bool:
    """Whether the plan was made of other data, or another model, than the saved job of its name remembers."""
    saved = saved_job(plan.job.name, store)
    return saved is not None and not saved.chain and saved.read != plan.content


def tried_out(path: Path, overrides: Sequence[str], max_steps: int) -> list[str]:
    """The overrides that make a job of another's first steps, with a folder, report and experiment of its own."""
    name = load_job(path, overrides).name
    return [*overrides, f"max_steps={max_steps}", f"name={name[:40]}-{max_steps}-steps"]


def _is_name(path: Path) -> bool:
    """Whether a job is given by its name, not by its file."""
    return bool(re.fullmatch(NAME, str(path))) and path.suffix != ".toml" and not path.exists()


def named_plan(path: Path, overrides: Sequence[str], store: StageStore) -> Plan | None:
    """The plan of a saved job, if no file but a job of this name is there.

    Raises ``InputError`` for a name that is no job's, and for overrides, which are of files.
    """
    if not _is_name(path):
        return None
    plan = saved_plan(str(path), store)
    if plan and overrides:
        raise InputError(Problem("RUN007", str(path), "is a job, and overrides change files", "name its file"))
    if plan is None and (not path.suffix or any(store.root.glob("jobs/*/job.json"))):
        found = f"is no job of {_short(store.root)}, nor a file"
        raise InputError(Problem("STO002", str(path), found, f"{jobs_like(str(path), store)}; or give a job's file"))
    return plan


def extend_job(
    path: Path,
    seeds: int,
    root: Path,
    console: Console,
    *,
    dry_run: bool,
    accept_drift: bool = False,
    mirror_url: str | None = None,
) -> Plan | int:
    """Add seeds to a job that is finished and run them. Returns the exit code, or the plan of a dry run.

    An extension that was interrupted is continued before another one is begun.
    """
    os.environ.update(_QUIET)
    store = StageStore(root)
    mirroring = Mirroring(None if dry_run else mirror_url, store, console)
    plan = _whole_plan(path, (), store, mirroring, extends=True)
    if is_fork(plan.job.name, store):
        raise InputError(Problem("RUN004", plan.job.name, "is a fork, one chain", "extend the job it left"))
    if not (dry_run and accept_drift):  # a dry run records nothing
        refuse_drift(plan, store, accept=accept_drift, joins=True)
    added = saved_added_seeds(plan.job.name, store)
    unfinished = {trial.seed for trial in open_trials(plan, store)}
    if plan.to_propose or not unfinished <= set(added):
        raise InputError(Problem("RUN003", plan.job.name, "is not finished", f"`{command('run', path)}` first"))
    new: tuple[int, ...] = ()
    if unfinished:
        console.print("the seeds added before are not finished; they come first, nothing is added")
    else:
        new = tuple(islice((seed for seed in count_up() if seed not in plan.job.seeds), seeds))
        longer = plan.job.model_copy(update={"seeds": (*plan.job.seeds, *new)})
        plan = plan_for(longer, store, plan.total_tokens)
    if dry_run:
        return plan
    save_job(plan, store, new)
    return _run(plan, store, console, mirroring)


def fork_stage(
    prefix: str,
    settings: Sequence[str],
    name: str | None,
    root: Path,
    console: Console,
    *,
    dry_run: bool,
    accept_drift: bool = False,
    mirror_url: str | None = None,
) -> Plan | int:
    """Start a trial from a committed stage. Returns the exit code, or the plan of a dry run."""
    os.environ.update(_QUIET)
    store = StageStore(root)
    mirroring = Mirroring(mirror_url, store, console)
    trial, after = _stage_of(prefix, store)
    plan = fork_plan(trial, after, tuple(parse_setting(setting) for setting in settings), name)
    concurrent_trials(plan.job.resources)
    _check_writable(root)
    check_fork_name(plan, store)
    if dry_run:
        return plan
    refuse_drift(plan, store, accept=accept_drift, joins=True)
    save_fork(plan, store)
    console.print(f"fork of {trial.job.name}, {trial.name}, after stage {after.index} ({after.key})")
    return _run(plan, store, console, mirroring)


def _stage_of(name: str, store: StageStore) -> tuple[Trial, PlannedStage]:
    """The stage of this name, if a chain can be planned on from it."""
    place = find_stage(name, store)
    if place.tried.manifest.verdict != "good":
        raise InputError(Problem("FRK005", name, f"ended {place.tried.manifest.verdict}", "name another stage"))
    if place.tried.stage not in place.trial.stages:
        found = "was trained after a restart, otherwise than its job says, which a fork cannot go on with"
        raise InputError(Problem("FRK005", name, found, "name a stage from before the trial's first restart"))
    return place.trial, place.tried.stage


def _run(
    plan: Plan,
    store: StageStore,
    console: Console,
    mirroring: Mirroring,
    at: Attachment | None = None,
) -> int:
    started, job, unused = time.time(), plan.job, unused_uri(plan.job.tracking.uri)
    sweep(store.root)
    console.print(
        f"{job.name}: {count(len(plan.trials), 'trial')}, {count(len(plan.unique_stages), 'stage')}, "
        f"{sum(trial.steps for trial in plan.trials):,} steps; store {_short(store.root)}"
    )
    if plan.to_propose:
        console.print(f"{count(plan.to_propose, 'configuration')} more to be proposed")
    if open_trials(plan, store) or plan.to_propose:
        doing = f"attaching to the Ray at {at.address}" if at else "starting Ray"
        console.print(f"{doing}; the first step comes in about half a minute")
    records = Tracker(plan, store)
    tracker = BackgroundTracker(records, console.print)
    tracker.start()
    if frontier(plan, store):
        tracker.notify()
    webhook = Webhook(plan, store, console.print)
    webhook.start()
    mirroring.begin(plan)
    upload, tracking = INTERRUPTED_SECONDS, INTERRUPTED_SECONDS
    try:
        plan, code = _train(plan, store, tracker, mirroring, webhook, console, started, at)
        upload, tracking = UPLOAD_SECONDS, TRACKING_SECONDS
        if frontier(plan, store):
            findings = _findings(plan, store)
            said = _written(findings, report_folder(plan, store))
            tracker.finish(report_folder(plan, store))
            _print_ending(
                findings, said, console
            )  # last: whatever becomes of what is printed, the records are complete
    except BaseException as error:
        code = _code_of(error)
        raise
    finally:
        mirroring.close(upload)
        if not tracker.close(tracking):
            later = command("track", job.name, "--store", _short(store.root))
            console.print(f"MLflow has not got everything; later: {later}")
        webhook.end(code)
    ui = command("ui", "--store", _short(store.root))
    console.print(f"MLflow   {records.page() or job.tracking.uri or ui}")
    if unused:
        console.print(unused)
    return code


def _code_of(error: BaseException) -> int:
    """The exit code of a command that this ends."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, StepwiseError) else FAILED


def checked_job(path: Path, overrides: tuple[str, ...], root: Path, at: Attachment | None = None) -> Job:
    """The job, if it can run here; nothing is written. Raises ``InputError``."""
    job = load_job(path, overrides)
    build_plan(job)
    _check_room(job, at)
    _check_writable(root)
    return job


def _check_room(job: Job, at: Attachment | None) -> None:
    """What a running Ray has is asked once we are attached to it."""
    if at:
        check_address(at)
    else:
        concurrent_trials(job.resources)
        with socket_folder():  # can be had, or is refused
            pass


def print_report(plan: Plan, store: StageStore, console: Console) -> None:
    """Write the report's files; print the frontier and where they are, or why they are not."""
    findings = _findings(plan, store)
    _print_ending(findings, _written(findings, report_folder(plan, store)), console)


def _written(findings: Findings, folder: Path) -> str:
    """Write the report's files. Returns where they are; of a store that is only to be read, that they are not."""
    try:
        write_report(findings, folder)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        return f"not written: {error.filename or folder}: {error.strerror}"
    return _short(folder / "report.html")


def _print_ending(findings: Findings, report: str, console: Console) -> None:
    console.print()
    for part in ending(findings):
        console.print(part)
    console.print(f"report   {report}")


def _findings(plan: Plan, store: StageStore) -> Findings:
    """What is to be reported. Raises ``InputError`` if it is nothing, or if another job ran under this name."""
    refuse_other_job(plan, store)
    findings = Findings.of(plan, store)
    if not findings.points:
        found = f"holds no stage of {plan.job.name} with this configuration"
        raise InputError(Problem("STO002", str(store.root), found, "run the job first"))
    return findings


def report_folder(plan: Plan, store: StageStore) -> Path:
    return job_folder(store.root, plan.job.name, "report")


def track_job(plan: Plan, store: StageStore, console: Console) -> int:
    """Deliver what the store holds to MLflow, with a fresh report."""
    findings, folder, unused = _findings(plan, store), report_folder(plan, store), unused_uri(plan.job.tracking.uri)
    tracker = Tracker(plan, store)
    tracker.sync()
    write_report(findings, folder)
    tracker.finish(folder)
    tracker.end()
    stages = count(len({point.stage_key for point in findings.points}), "stage")
    console.print(f"{stages} of {plan.job.name} are in {tracker.page() or tracker.uri}")
    if plan.job.tracking.uri is None:
        console.print(f"to see them: {command('ui', '--store', store.root)}")
    if unused:
        console.print(unused)
    return DONE


def _prepared_plan(job: Job, store: StageStore) -> Plan:
    """Tokens are made before the plan, which then counts them instead of estimating."""
    from orchestrator.runtime.data import prepare_data

    return plan_for(job, store, prepare_data(job, store).total_tokens)


def _train(
    plan: Plan,
    store: StageStore,
    tracker: BackgroundTracker,
    mirroring: Mirroring,
    webhook: Webhook,
    console: Console,
    started: float,
    at: Attachment | None,
) -> tuple[Plan, int]:
    """Run the trials; return the plan with what was proposed meanwhile, and the exit code."""
    seen, proposed = 0, None

    def tick() -> None:
        nonlocal seen, proposed
        if watch.plan.to_propose and (now := proposals(plan.job, store.root)) != proposed:
            proposed, watch.plan = now, plan_for(plan.job, store, plan.total_tokens)
            tracker.follow(watch.plan)
            webhook.follow(watch.plan)
        watch.refresh()
        if watch.committed > seen:
            seen = watch.committed
            tracker.notify()
            webhook.notify()
            mirroring.follow(watch.plan)

    try:
        with Watch(plan, store, console, started) as watch:
            run_trials(plan, store, tick, at)
    except TrialError as error:
        console.print(str(error), style="red")
    for chain in replay_all(watch.plan, store):
        if chain.given_up:
            console.print(f"{chain.trial.name} gave up: {chain.given_up.reason}. What was tried:")
            for line in chain.given_up.ladder_tried:
                console.print(f"  {line}", soft_wrap=True)
    return watch.plan, _exit_code(watch.plan, store)


def _exit_code(plan: Plan, store: StageStore) -> int:
    pruned = pruned_trials(plan, store.root)
    chains = replay_all(plan, store)
    if not plan.to_propose and all(chain.finished or chain.trial.name in pruned for chain in chains):
        return DONE
    return PARTIAL if any(chain.standing for chain in chains) else FAILED


def _check_writable(root: Path) -> None:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if not existing.is_dir():
        raise InputError(Problem("STO003", str(existing), "is a file", "name a folder with --store"))
    if not os.statvfs(existing).f_blocks:  # /proc and /sys call themselves writable
        found = f"cannot be made: {existing} is no place for files"
        raise InputError(Problem("STO003", str(root), found, "name another folder with --store"))
    if existing == root and root.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise InputError(Problem("STO008", str(root), "can be written by everybody here", f"chmod o-w {root}"))
    for folder in (existing, *(root / name for name in FOLDERS)):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            fix = "give yourself write access, or name another folder with --store"
            raise InputError(Problem("STO004", str(folder), "cannot be written", fix))


def _short(path: Path) -> str:
    """As a person would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
