"""Talks over HTTP with a cluster's job server, from any machine: submits Stepwise commands and follows them.

Ray calls a submitted command a job. Here it is a submission: a job is a search.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config import Cluster
from orchestrator.environment import PROXIES, set_here
from orchestrator.errors import InputError, Problem, StepwiseError, first_line
from orchestrator.identity import digest
from orchestrator.ray.access import TIMEOUT_SECONDS, check_asks_for_token, document, token

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

STOP_SECONDS = 60
ASK_SECONDS = 180
START_SECONDS = 120
POLL_SECONDS = 0.5
_STARTING = "No available agent"
"""The answer of a head node that is still starting: its dashboard is up before its agent."""
JOB, STORE, WORK = "stepwise.job", "stepwise.store", "stepwise.work"
"""The keys of a submission's metadata, which every user of the cluster can read."""

# Ray's own stop is a SIGTERM and, 3 s later, a SIGKILL (research notes, ray.md §3).
_STOPPABLE = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}


class Unreachable(StepwiseError):
    """The cluster does not answer. The stages that it committed are in the store."""


@dataclass(frozen=True)
class Submission:
    """One run of a search on a cluster."""

    id: str
    status: str
    """A word of Ray's, as RUNNING."""
    work: str
    """The hash of the resolved job."""
    message: str
    exit_code: int | None
    started_at: float
    """The moment of its start, in seconds since the epoch."""

    @property
    def alive(self) -> bool:
        """Return whether the submission waits or runs."""
        return self.status in ("PENDING", "RUNNING")


class JobServer:
    """The job server of a cluster file. Make it with ``connect``."""

    def __init__(self, cluster: Cluster, client: JobSubmissionClient) -> None:
        self.cluster, self._client = cluster, client

    @classmethod
    def connect(cls, cluster: Cluster) -> JobServer:
        """Connect, with the token if the cluster asks for one.

        Raises ``InputError`` if the cluster is open to everyone or refuses the token, ``Unreachable`` if it is gone.
        """
        with _answering(cluster.address):
            asks = check_asks_for_token(
                cluster.address, cluster.allow_unauthenticated, "write allow_unauthenticated: true into the file"
            )
            headers = {"Authorization": f"Bearer {token(Path(cluster.token_file))}"} if asks else {}
            _check_versions(cluster, headers)
            return cls(cluster, _client(cluster.address, headers))

    def submissions(self, job: str) -> list[Submission]:
        """Return every run of a job's search on the cluster's store, oldest first."""
        with _answering(self.cluster.address):
            listed = self._client.list_jobs()
        wanted = {JOB: job, STORE: self.cluster.store}
        known = [_submission(details) for details in listed if wanted.items() <= (details.metadata or {}).items()]
        return sorted(known, key=lambda submission: submission.started_at)

    def submit(self, job: str, work: str, words: Sequence[str], file: Path) -> str:
        """Ship a file and run ``stepwise WORDS`` on the head node, as a run of a job's search. Returns its id."""
        before = self.submissions(job)
        number = int(before[-1].id.rpartition("-")[2]) + 1 if before else 1
        name = f"stepwise-{job}-{digest(self.cluster.store)[:8]}-{number}"
        metadata = {JOB: job, STORE: self.cluster.store, WORK: work}
        return self._start(name, words, file, metadata)

    def ask_json(self, words: Sequence[str], file: Path | None = None) -> Any:
        """Return the JSON that ``stepwise WORDS`` prints on the head node. Takes seconds and leaves nothing there."""
        name = self._start(f"stepwise-ask-{uuid.uuid4().hex[:12]}", words, file, {})
        try:
            ended = self.wait(name, ASK_SECONDS)
            if ended.alive:
                raise StepwiseError(Problem("CLU008", self.cluster.address, "did not answer in time", _ASK_RAY))
            said = self.logs(name) if ended.exit_code is not None else ""  # a lost command has no log but a message
        finally:  # end it and delete it, if the server allows that
            with suppress(StepwiseError):
                if self.submission(name).alive:
                    self.stop(name)
                with _answering(self.cluster.address):
                    self._client.delete_job(name)
        if (document := printed_json(said)) is None:
            last, *_ = [*said.strip().splitlines()[-1:], *ended.message.splitlines(), ended.status]
            raise StepwiseError(Problem("CLU008", self.cluster.address, f"could not answer: {last}", _ASK_RAY))
        return document

    def wait(self, name: str, seconds: float) -> Submission:
        """Return a submission once it has ended, or as it is after a number of seconds."""
        deadline = time.monotonic() + seconds
        while (now := self.submission(name)).alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return now

    def submission(self, name: str) -> Submission:
        """Return a submission as it is now."""
        with _answering(self.cluster.address):
            return _submission(self._client.get_job_info(name))

    def stop(self, name: str) -> Submission:
        """Interrupt a submission as Ctrl-C would, and wait until it has ended."""
        with _answering(self.cluster.address):
            self._client.stop_job(name)
        return self.wait(name, STOP_SECONDS + 10)

    def logs(self, name: str) -> str:
        """Return what a submission has printed."""
        with _answering(self.cluster.address):
            return self._client.get_job_logs(name)

    def follow(self, name: str) -> Iterator[str]:
        """Yield the log from its beginning, as it grows, until the submission has ended. Raises ``Unreachable``."""
        lines = self._client.tail_job_logs(name)

        async def following() -> str | None:
            return await anext(lines, None)

        with asyncio.Runner() as loop:
            while True:
                try:
                    text = loop.run(following())
                except (RuntimeError, OSError) as error:
                    found = f"went away ({type(error).__name__})"
                    fix = "what is committed stays; `stepwise status` answers from the store"
                    raise Unreachable(Problem("CLU007", self.cluster.address, found, fix)) from None
                if text is None:
                    return
                yield text

    def page(self, name: str) -> str:
        """Return the page of a submission in Ray's dashboard."""
        return f"{self.cluster.address}/#/jobs/{name}"

    def _start(self, name: str, words: Sequence[str], file: Path | None, metadata: dict[str, str]) -> str:
        command = shlex.join([self.cluster.python, "-m", "orchestrator", *words])
        deadline = time.monotonic() + START_SECONDS
        with _packed(file, self.cluster.ship_package) as folder, _answering(self.cluster.address):
            while True:
                try:
                    return self._client.submit_job(
                        entrypoint=f"exec {command}",
                        submission_id=name,
                        runtime_env={"working_dir": str(folder), "env_vars": _STOPPABLE},
                        metadata=metadata,
                    )
                except RuntimeError as error:
                    if _STARTING not in str(error) or time.monotonic() > deadline:
                        found = f"did not take the job: {first_line(error)}"
                        raise StepwiseError(Problem("CLU015", self.cluster.address, found, _ASK_RAY)) from error
                time.sleep(POLL_SECONDS)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Raise what Ray's client raises as an error that names the cluster."""
    try:
        yield
    except OSError as error:
        found = f"does not answer ({type(error).__name__}){set_here(*PROXIES)}"
        raise Unreachable(Problem("CLU007", address, found, "start it, or open the tunnel to it")) from None
    except RuntimeError as error:
        raise StepwiseError(Problem("CLU015", address, f"refuses: {first_line(error)}", _ASK_RAY)) from error


_ASK_RAY = "run `ray status` on the head node to see its state"


def printed_json(said: str) -> Any:
    """Return the indented JSON document among the other lines that a command printed, or None."""
    for start in re.finditer(r"^[\[{]$", said, re.MULTILINE):
        with suppress(ValueError):
            return json.JSONDecoder().raw_decode(said, start.start())[0]
    return None


def _check_versions(cluster: Cluster, headers: dict[str, str]) -> None:
    import requests

    answer = requests.get(
        f"{cluster.address}/api/version", headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
    )
    if answer.status_code in (401, 403):
        fix = f"put the cluster's token into RAY_AUTH_TOKEN or {cluster.token_file}"
        raise InputError(Problem("CLU018", cluster.address, "refuses the token", fix))
    there, here = document(answer).get("ray_version"), version("ray")
    if there is None:
        found = f"is no Ray dashboard (HTTP {answer.status_code})"
        raise InputError(Problem("CLU014", cluster.address, found, "name the port of Ray's dashboard, often 8265"))
    if there != here:
        fix = "install the same Ray on both sides"
        raise InputError(Problem("CLU011", cluster.address, f"runs Ray {there}, here is Ray {here}", fix))


def _client(address: str, headers: dict[str, str]) -> JobSubmissionClient:
    """Return Ray's client of this address, whatever the environment says: this command may itself run in a Ray job."""
    for stronger in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(stronger, None)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # or it would look for a token of its own
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return JobSubmissionClient(address, headers=headers)


def _submission(details: JobDetails) -> Submission:
    return Submission(
        id=details.submission_id or "",
        status=str(details.status.value),
        work=(details.metadata or {}).get(WORK, ""),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started_at=(details.start_time or 0) / 1000,
    )


@contextmanager
def _packed(file: Path | None, ship_package: bool) -> Iterator[Path]:
    """Yield a folder with what a command needs on the head node: a file, and the package with its version."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        if file:
            shutil.copyfile(file, target / file.name)
        if ship_package:
            package = Path(__file__).parents[1]
            shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__"))
            record = target / f"stepwise-{version('stepwise')}.dist-info/METADATA"
            record.parent.mkdir()
            record.write_text(f"Metadata-Version: 2.1\nName: stepwise\nVersion: {version('stepwise')}\n")
        yield target
