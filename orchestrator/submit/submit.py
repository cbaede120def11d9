"""The verbs of a search on a cluster: submit it, see where it stands, follow it, stop it, submit it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from orchestrator.config import Cluster, Job, MultiplicationTask, PretrainedModel, load_job, read_job
from orchestrator.errors import INTERRUPTED, InputError, Problem
from orchestrator.identity import digest
from orchestrator.labels import count
from orchestrator.plan import build_plan
from orchestrator.report.terminal.states import state_table
from orchestrator.results.state import JobState, job_state
from orchestrator.shown import command, visible_log
from orchestrator.store import StageStore, saved_plan
from orchestrator.submit.job_server import JobServer, Submission, Unreachable

DONE = 0


def submit_job(
    path: Path,
    overrides: Sequence[str],
    cluster: Cluster,
    console: Console,
    *,
    dry_run: bool,
    accept_drift: bool = False,
) -> int:
    """Ship a job to a cluster and run it there, unless it runs already. Returns the exit code."""
    job = load_job(path, overrides)
    plan = build_plan(job)  # what cannot be planned is not sent
    _refuse_relative(read_job(path, overrides))
    words = ["run", path.name, *overrides, "--store", cluster.store, "--address", "auto"]
    words += ["--allow-unauthenticated"] * cluster.allow_unauthenticated + ["--accept-drift"] * accept_drift
    server = JobServer.connect(cluster)
    work = digest(job.model_dump(mode="json"))
    running = [submission for submission in server.submissions(job.name) if submission.alive]
    if running and running[-1].work != work:
        found = f"another configuration of {job.name} runs there as {running[-1].id}"
        raise InputError(Problem("CLU012", cluster.address, found, "stop it first with `stepwise stop`"))
    if dry_run:
        console.print(f"{job.name}: {count(len(plan.trials), 'trial')}. {cluster.address} would run:")
        console.print(command(*words))
        return DONE
    name = running[-1].id if running else server.submit(job.name, work, words, path)
    console.print(f"{job.name} {'runs already' if running else 'is submitted'}: {name}")
    console.print(f"Ray      {server.page(name)}")
    console.print(f"MLflow   {job.tracking.uri or command('ui', '--store', cluster.store)}")
    console.print(f"store    {cluster.store}")
    return DONE


def _refuse_relative(job: Job) -> None:
    """Raise ``InputError`` for a relative path: only the job file is shipped, so every node must see the same paths."""
    files = {"model.name": job.model.name} if isinstance(job.model, PretrainedModel) else {}
    if not isinstance(job.task, MultiplicationTask) and not job.task.dataset:
        files |= {f"task.{split}": getattr(job.task, split) for split in ("train", "validation", "test")}
    for field, name in files.items():
        if name and Path(name).exists() and not Path(name).is_absolute():
            found = f"{name} lies on this machine only, beside the job file"
            raise InputError(
                Problem("CLU013", field, found, "put it on storage that all nodes see and give its full path")
            )


def show_status(job: str, cluster: Cluster | None, store: Path, console: Console, *, as_json: bool) -> int:
    """Print where a search stands: its run on the cluster if that answers, and its trials. Returns the exit code.

    The trials are read from the store, through the cluster if this machine does not see it.
    """
    root = Path(cluster.store) if cluster else store
    server = latest = None
    note = ""
    if cluster:
        try:
            server = JobServer.connect(cluster)
            latest = next(reversed(server.submissions(job)), None)
            note = _line(latest, server) if latest else f"{cluster.address} knows of no run of {job}"
        except Unreachable as error:
            note = f"{error.problems[0].where} {error.problems[0].found}; the store says:"
    here = StageStore(root)
    if server and not saved_plan(job, here):
        document = server.ask_json(["status", job, "--store", server.cluster.store, "--json"])
        state = JobState.model_validate({key: value for key, value in document.items() if key != "submission"})
    else:
        state = job_state(job, here)
    if as_json:
        submission = {"id": latest.id, "status": latest.status, "exit_code": latest.exit_code} if latest else None
        print(json.dumps(state.model_dump(mode="json") | {"submission": submission}, indent=1))
        return DONE
    if note:
        console.print(note)
    console.print(f"{job}: {state.words}; store {root}")
    console.print(state_table(state))
    if state.state == "unfinished" and not (latest and latest.alive):
        again = "submit the job again" if cluster else f"run `{command('run', job, '--store', root)}`"
        console.print(f"No worker is training. The command may have just started; otherwise {again}.")
    return DONE


def show_logs(job: str, cluster: Cluster, *, follow: bool) -> int:
    """Print what the search's latest run printed. With ``follow``, go on until it ends, and return its exit code."""
    server = JobServer.connect(cluster)
    latest = _latest(server, job)
    if not follow:
        sys.stdout.write(visible_log(server.logs(latest.id)))
        return DONE
    for text in server.follow(latest.id):
        sys.stdout.write(visible_log(text))
        sys.stdout.flush()
    ended = server.wait(latest.id, 10)
    if ended.status == "STOPPED":
        return INTERRUPTED
    return ended.exit_code if ended.exit_code is not None else int(ended.status != "SUCCEEDED")


def stop_job(job: str, cluster: Cluster, console: Console) -> int:
    """Stop a search's latest run between two steps. Returns the exit code."""
    server = JobServer.connect(cluster)
    latest = _latest(server, job)
    if not latest.alive:
        console.print(f"nothing to stop: {_line(latest, server)}")
        return DONE
    stopped = server.stop(latest.id)
    console.print(_line(stopped, server))
    console.print("what is committed stays; the same `stepwise submit` continues")
    return int(stopped.alive)


def job_name(text: Path) -> str:
    """Return the name of a job that is given as its file or by its name."""
    return load_job(text).name if text.exists() or text.suffix == ".toml" else str(text)


def _latest(server: JobServer, job: str) -> Submission:
    known = server.submissions(job)
    if not known:
        raise InputError(Problem("CLU019", server.cluster.address, f"knows of no run of {job}", "submit it first"))
    return known[-1]


def _line(submission: Submission, server: JobServer) -> str:
    code = f", exit code {submission.exit_code}" if submission.exit_code else ""
    return f"{submission.id}: {submission.status.lower()}{code}; {server.page(submission.id)}"
