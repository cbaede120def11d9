"""Checks, before a job is submitted, whether it would run on a cluster: from here, then on every node."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.config import Cluster, Job, load_job
from orchestrator.errors import InputError, StepwiseError
from orchestrator.labels import count
from orchestrator.method.stage import Record
from orchestrator.plan import Plan, build_plan
from orchestrator.ray.joined import Attachment, connect, placement, room_now
from orchestrator.ray.nodes import NodeView, node_views
from orchestrator.results.forecast import forecast
from orchestrator.store import StageStore
from orchestrator.submit.job_server import JobServer
from orchestrator.tracking import Tracker

MAX_SKEW_SECONDS = 5.0
MIN_FREE_BYTES = 1 << 30


class Check(Record):
    """One question and its answer."""

    name: str
    sound: bool
    found: str
    fix: str = ""
    """The thing to do if the answer is not sound."""


def check_from_here(path: Path, overrides: Sequence[str], cluster: Cluster) -> list[Check]:
    """Ask the cluster's job server and, through it, every node."""
    build_plan(load_job(path, overrides))
    try:
        server = JobServer.connect(cluster)
    except StepwiseError as error:
        return [_failed("cluster", error)]
    access = "a token is not asked for" if cluster.allow_unauthenticated else "takes this machine's token"
    words = ["doctor", path.name, *overrides, "--store", cluster.store, "--address", "auto", "--json"]
    words += ["--allow-unauthenticated"] * cluster.allow_unauthenticated
    checks = [Check(name="cluster", sound=True, found=f"{cluster.address} answers, {access}, same Ray")]
    try:
        return checks + [Check.model_validate(check) for check in server.ask_json(words, path)]
    except StepwiseError as error:
        return [*checks, _failed("head node", error)]


def check_inside(path: Path, overrides: Sequence[str], root: Path, at: Attachment) -> list[Check]:
    """Ask every node of the Ray that this machine is part of."""
    job = load_job(path, overrides)
    try:
        connect(at)
    except InputError as error:
        return [_failed("Ray", error)]
    import ray

    try:
        plan, store = build_plan(job), StageStore(root)
        return [_room(job), *_nodes(node_views(root), plan, store), _mlflow(plan, store)]
    finally:
        ray.shutdown()


def _room(job: Job) -> Check:
    try:
        fits = placement(job.resources)
    except InputError as error:
        return _failed("resources", error)
    pinned = fits.driver_retries == 0
    where = "on the nodes with stepwise_driver" if pinned else "on any node, also one that may be taken away"
    now = min(room_now(job.resources), fits.concurrent)
    full = "" if now else " (others use it; a trial waits up to an hour for room)"
    found = f"{count(fits.concurrent, 'trial')} at a time, {now} of them now{full}; their drivers {where}"
    return Check(name="resources", sound=True, found=found)


def _nodes(views: list[NodeView], plan: Plan, store: StageStore) -> Iterator[Check]:
    here = ".".join(map(str, sys.version_info[:3]))
    answers = [view for view in views if view.answered]
    bad = "; ".join(f"{view.name}: {view.problem}" for view in views if view.problem)
    yield Check(
        name="store",
        sound=not bad,
        found=bad or f"{store.root} is the same on {count(len(views), 'node')}, which can write and lock files there",
        fix=f"mount one file system, with file locks, as {store.root} on every node",
    )
    yield _over_nodes(
        "Python",
        [view for view in answers if view.python != here],
        f"{here} everywhere",
        f"not the head's Python {here}",
        "use one image on all nodes",
    )
    yield _over_nodes(
        "clocks",
        [view for view in answers if view.skew > MAX_SKEW_SECONDS],
        f"within {MAX_SKEW_SECONDS:g} s",
        f"off by more than {MAX_SKEW_SECONDS:g} s",
        "synchronise them (chrony)",
    )
    needed = max(MIN_FREE_BYTES, forecast(plan, store).disk_bytes_left or 0)
    free = min((view.free_bytes for view in views if not view.problem), default=0)
    yield Check(
        name="disk",
        sound=free >= needed,
        found=f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB wanted",
        fix="free some, or name another store",
    )


def _over_nodes(name: str, bad: list[NodeView], sound: str, unsound: str, fix: str) -> Check:
    found = f"{', '.join(view.name for view in bad)}: {unsound}" if bad else sound
    return Check(name=name, sound=not bad, found=found, fix=fix if bad else "")


def _mlflow(plan: Plan, store: StageStore) -> Check:
    uri = plan.job.tracking.uri
    if uri is None:
        return Check(name="MLflow", sound=True, found="a file in the store; for several users name a server")
    try:
        Tracker(plan, store).check_writable()
    except StepwiseError as error:
        fix = "MLFLOW_TRACKING_USERNAME and _PASSWORD, or ~/.mlflow/credentials, belong to the head node's user"
        return Check(name="MLflow", sound=False, found=f"{uri}: {error.problems[0].found}", fix=fix)
    return Check(name="MLflow", sound=True, found=f"{uri} answers and takes records")


def _failed(name: str, error: StepwiseError) -> Check:
    problem = error.problems[0]
    return Check(name=name, sound=False, found=f"{problem.where}: {problem.found}", fix=problem.fix)
