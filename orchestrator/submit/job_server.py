"""A cluster's job server, spoken to over HTTP from any machine: submissions of Stepwise commands and their fate."""

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
"""What a head node says of a job while it is still starting: its dashboard is up before its agent."""
JOB, STORE, WORK = "stepwise.job", "stepwise.store", "stepwise.work"
"""Keys of a submission's metadata, which everybody who may use the cluster can read."""

# Ray's own stop is a SIGTERM and, 3 s later, a SIGKILL (research notes, ray.md §3).
_STOPPABLE = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}


class Unreachable(StepwiseError):
    """The cluster does not answer; what it committed is in the store."""


@dataclass(frozen=True)
class Submission:
    """One run of a search on a cluster. ``status``: Ray's word; ``work``: hash of what was to be done."""

    id: str
    status: str
    work: str
    message: str
    exit_code: int | None
    started_at: float

    @property
    def alive(self) -> bool:
        return self.status in ("PENDING", "RUNNING")


class JobServer:
    """The job server of a cluster file. Make it with ``connect``."""

    def __init__(self, cluster: Cluster, client: JobSubmissionClient) -> None:
        self.cluster, self._client = cluster, client

    @classmethod
    def connect(cls, cluster: Cluster) -> JobServer:
        """Raises ``InputError`` if it is open to everyone or refuses our token, ``Unreachable`` if it is gone."""
        with _answering(cluster.address):
            asks = check_asks_for_token(
                cluster.address, cluster.allow_unauthenticated, "write allow_unauthenticated: true into the file"
            )
            headers = {"Authorization": f"Bearer {token(Path(cluster.token_file))}"} if asks else {}
            _check_versions(cluster, headers)
            return cls(cluster, _client(cluster.address, headers))

    def submissions(self, job: str) -> list[Submission]:
        """Every run of a job's search on the cluster's store, oldest first."""
        with _answering(self.cluster.address):
            listed = self._client.list_jobs()
        known = [
            _submission(details)
            for details in listed
            if (details.metadata or {}).get(JOB) == job and details.metadata.get(STORE) == self.cluster.store
        ]
        return sorted(known, key=lambda submission: submission.started_at)

    def submit(self, job: str, work: str, words: Sequence[str], file: Path) -> str:
        """Ship a file and run ``stepwise WORDS`` on the head node, as a run of a job's search."""
        before = self.submissions(job)
        number = int(before[-1].id.rpartition("-")[2]) + 1 if before else 1
        name = f"stepwise-{job}-{digest(self.cluster.store)[:8]}-{number}"
        metadata = {JOB: job, STORE: self.cluster.store, WORK: work}
        return self._start(name, words, file, metadata)

    def ask_json(self, words: Sequence[str], file: Path | None = None) -> Any:
        """The document that ``stepwise WORDS`` prints on the head node. Takes some seconds; leaves nothing behind."""
        name = self._start(f"stepwise-ask-{uuid.uuid4().hex[:12]}", words, file, {})
        try:
            ended = self.wait(name, ASK_SECONDS)
            if ended.alive:
                raise StepwiseError(Problem("CLU008", self.cluster.address, "did not answer in time", "is it full?"))
            said = self.logs(name) if ended.exit_code is not None else ""  # what never ran, or was lost, has a message
        finally:
            self._forget(name)
        if (document := printed_json(said)) is None:
            last, *_ = [*said.strip().splitlines()[-1:], *ended.message.splitlines(), ended.status]
            fix = "`ray status` on the head node says how it is"
            raise StepwiseError(Problem("CLU008", self.cluster.address, f"could not answer: {last}", fix))
        return document

    def _forget(self, name: str) -> None:
        """End a submission and delete it, if the server lets us."""
        with suppress(StepwiseError):
            if self.submission(name).alive:
                self.stop(name)
            with _answering(self.cluster.address):
                self._client.delete_job(name)

    def wait(self, name: str, seconds: float) -> Submission:
        """A submission once it has ended, or as it is when the time is over."""
        deadline = time.monotonic() + seconds
        while (now := self.submission(name)).alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return now

    def submission(self, name: str) -> Submission:
        with _answering(self.cluster.address):
            return _submission(self._client.get_job_info(name))

    def stop(self, name: str) -> Submission:
        """Interrupt a submission as Ctrl-C would, and wait until it has ended."""
        with _answering(self.cluster.address):
            self._client.stop_job(name)
        return self.wait(name, STOP_SECONDS + 10)

    def logs(self, name: str) -> str:
        with _answering(self.cluster.address):
            return self._client.get_job_logs(name)

    def follow(self, name: str) -> Iterator[str]:
        """The log from its beginning, as it grows, until the submission has ended. Raises ``Unreachable``."""
        lines = self._client.tail_job_logs(name)
        with asyncio.Runner() as loop:
            while True:
                try:
                    yield loop.run(anext(lines))
                except StopAsyncIteration:
                    return
                except (RuntimeError, OSError) as error:
                    found = f"went away ({type(error).__name__})"
                    fix = "what is committed stays; `stepwise status` answers from the store"
                    raise Unreachable(Problem("CLU007", self.cluster.address, found, fix)) from None

    def page(self, name: str) -> str:
        """A submission in Ray's dashboard."""
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
                        fix = "`ray status` on the head node says how it is"
                        raise StepwiseError(Problem("CLU015", self.cluster.address, found, fix)) from error
                time.sleep(POLL_SECONDS)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Say of what Ray's client raises which cluster it was: of no answer, or of one that is an error."""
    try:
        yield
    except OSError as error:
        found = f"does not answer ({type(error).__name__}){set_here(*PROXIES)}"
        raise Unreachable(Problem("CLU007", address, found, "is its tunnel open, does it run?")) from None
    except RuntimeError as error:
        fix = "`ray status` on the head node says how it is"
        raise StepwiseError(Problem("CLU015", address, f"refuses: {first_line(error)}", fix)) from error


def printed_json(said: str) -> Any:
    """The indented JSON document among the other lines that a command printed, or None."""
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
        fix = f"RAY_AUTH_TOKEN and {cluster.token_file} are where it is looked for"
        raise InputError(Problem("CLU004", cluster.address, "refuses the token", fix))
    there, here = document(answer).get("ray_version"), version("ray")
    if there is None:
        found = f"is no Ray dashboard (HTTP {answer.status_code})"
        raise InputError(Problem("CLU014", cluster.address, found, "name the port of Ray's dashboard, often 8265"))
    if there != here:
        fix = "install the same Ray on both sides"
        raise InputError(Problem("CLU011", cluster.address, f"runs Ray {there}, here is Ray {here}", fix))


def _client(address: str, headers: dict[str, str]) -> JobSubmissionClient:
    """Ray's client, of this address whatever the environment says: a job of ours may be what runs here."""
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
    """A folder with what a command needs there: a file, and the package with its version."""
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
