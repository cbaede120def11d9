"""Verbs of a cluster: submit a job to it, see it, follow it, stop it, ask whether it would run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.arguments import (
    DEFAULT_STORE,
    AcceptDrift,
    AsJson,
    DryRun,
    JobFile,
    Overrides,
    StoreFolder,
    local_path,
)
from orchestrator.cli.output import console, print_json
from orchestrator.shown import command, visible

if TYPE_CHECKING:
    from orchestrator.config import Cluster

ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", parser=local_path, metavar="FILE", help="A cluster file, as clusters/local.yaml."),
]
JobServerUrl = Annotated[
    str | None,
    typer.Option("--address", metavar="URL", help="A cluster's dashboard instead of a file; --store is its store."),
]


def submit(
    job: JobFile,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    address: JobServerUrl = None,
    store: StoreFolder = DEFAULT_STORE,
    dry_run: DryRun = False,
    accept_drift: AcceptDrift = False,
) -> None:
    """Run a job on a Ray cluster. Submit it again to continue."""
    from orchestrator.submit.submit import submit_job

    sys.exit(
        submit_job(
            job,
            overrides or (),
            _cluster(cluster, address, store),
            console(),
            dry_run=dry_run,
            accept_drift=accept_drift,
        )
    )


def status(
    job: Annotated[
        Path | None, typer.Argument(parser=local_path, help="A job file, or a job's name. Default: every job.")
    ] = None,
    cluster: ClusterFile = None,
    address: JobServerUrl = None,
    store: StoreFolder = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Show where every job of the store stands; with JOB every trial of it, in the store or on a cluster."""
    from orchestrator.commands.status import show_jobs
    from orchestrator.store import StageStore
    from orchestrator.submit.submit import job_name, show_status

    there = _cluster(cluster, address, store) if cluster or address else None
    if job is None:
        if there:
            where = f"`{command('status', '--store', there.store)}` lists them where that store is"
            raise typer.BadParameter(f"say which job; {where}")
        sys.exit(show_jobs(StageStore(store.absolute()), console(), as_json=as_json))
    sys.exit(show_status(job_name(job), there, store.absolute(), console(), as_json=as_json))


def logs(
    job: JobFile,
    cluster: ClusterFile = None,
    address: JobServerUrl = None,
    store: StoreFolder = DEFAULT_STORE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends; exit with its code.")] = False,
) -> None:
    """Print what a submitted job prints."""
    from orchestrator.submit.submit import job_name, show_logs

    sys.exit(show_logs(job_name(job), _cluster(cluster, address, store), follow=follow))


def stop(
    job: JobFile, cluster: ClusterFile = None, address: JobServerUrl = None, store: StoreFolder = DEFAULT_STORE
) -> None:
    """Stop a submitted job, all its trials. What is committed stays."""
    from orchestrator.submit.submit import job_name, stop_job

    sys.exit(stop_job(job_name(job), _cluster(cluster, address, store), console()))


def doctor(
    job: Path,
    overrides: Sequence[str],
    cluster: Path | None,
    address: str | None,
    allow_unauthenticated: bool,
    store: Path,
    as_json: bool,
) -> NoReturn:
    """Ask whether a job would run on a cluster, or inside one on the Ray at hand."""
    from orchestrator.ray.joined import Attachment
    from orchestrator.submit.preflight import check_from_here, check_inside

    if address and "://" not in address and cluster is None:
        checks = check_inside(job, overrides, store.absolute(), Attachment(address, allow_unauthenticated))
    else:
        checks = check_from_here(job, overrides, _cluster(cluster, address, store))
    if as_json:
        print_json([check.model_dump(mode="json") for check in checks])
    else:
        for check in checks:
            fix = "" if check.sound or not check.fix else f"; {check.fix}"
            print(visible(f"{'ok   ' if check.sound else 'FAIL '} {check.name}: {check.found}{fix}"))
    sys.exit(0 if all(check.sound for check in checks) else 1)


def _cluster(file: Path | None, address: str | None, store: Path) -> Cluster:
    """The cluster of a file, or of a URL and a store."""
    from orchestrator.config import load_cluster, valid_cluster

    if (file is None) == (address is None):
        raise typer.BadParameter("say which cluster: --cluster FILE, or --address URL and --store")
    return (
        load_cluster(file) if file else valid_cluster({"address": address, "store": str(store.absolute())}, "--address")
    )
