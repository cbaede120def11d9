"""A job is tracked to MLflow on PostgreSQL behind a password: ``docker/mlflow.sh``, without a container."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import free_port, stepwise
from test_tracking import ALL, Recorded, commit_all, make_plan

from orchestrator.results.frontier import frontier
from orchestrator.store import StageStore, save_job

REPOSITORY = Path(__file__).parents[2]
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
DEADLINE_SECONDS = 600
pytestmark = [
    pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL: apt-get install postgresql"),
    pytest.mark.skipif(shutil.which("runuser") is None, reason="needs runuser"),
    pytest.mark.timeout(30 * 60),
]


def as_postgres(program: str, *words: str | Path) -> None:
    """Run one of PostgreSQL's programs, which refuse to be run by root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, POSTGRES / program, *words], cwd="/", check=True, stdout=subprocess.DEVNULL)


@contextmanager
def database(password: Path) -> Iterator[str]:
    """PostgreSQL on a free loopback port, with an empty database ``mlflow`` of a user with a password. Its URL."""
    folder, port = Path(tempfile.mkdtemp(prefix="stepwise-postgres-")), free_port()
    try:
        own_password = Path(shutil.copy(password, folder))
        if os.geteuid() == 0:
            for path in (folder, own_password):
                shutil.chown(path, "postgres", "postgres")
        identity = ["--username=mlflow", f"--pwfile={own_password}", "--auth=scram-sha-256"]
        as_postgres("initdb", *identity, "-D", folder / "data")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=''"
        as_postgres("pg_ctl", "start", "-w", "-D", folder / "data", "-l", folder / "log", "-o", options)
        try:
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            as_postgres("pg_ctl", "stop", "-m", "fast", "-D", folder / "data")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """A folder of secrets, as ``docker/up.sh`` makes it."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name in ("postgres_password", "mlflow_password", "mlflow_cookie_key"):
        (folder / name).write_text(secrets.token_hex(32))
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture
def server(tmp_path: Path, passwords: Path) -> Iterator[str]:
    """The address of MLflow."""
    pytest.importorskip("psycopg2", reason="needs pip install '.[server]'")
    port = free_port()
    with database(passwords / "postgres_password") as url, (tmp_path / "mlflow.log").open("w") as log:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "SECRETS": str(passwords),
            "DATABASE": url,
            "ARTIFACTS": str(tmp_path / "artifacts"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        script = REPOSITORY / "docker/mlflow.sh"
        process = subprocess.Popen(["bash", script], env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not listening(port):
                assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(DEADLINE_SECONDS)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_numbers_on_the_server_are_those_of_the_store(
    tmp_path: Path, server: str, passwords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server}/api/2.0/mlflow/experiments/search?max_results=1", timeout=60)  # noqa: S310
    plan, store = make_plan("small", server, methods=ALL), StageStore(tmp_path / "stepwise-store")
    for trial in plan.trials:
        commit_all(store, trial, rate=100 / 3)
    save_job(plan, store)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", (passwords / "mlflow_password").read_text())
    said = ""
    for verb in ("run", "track"):  # the second finds all of it there
        ran = stepwise(verb, "small", cwd=tmp_path)
        said += ran.stdout + ran.stderr
        assert ran.returncode == 0, said

    recorded = Recorded(plan, server)
    points = frontier(plan, store)
    for name, run in recorded.runs().items():
        own = [point for point in points if point.trial == name]
        assert recorded.values(run, "stage/exact_match") == [(point.step, point.exact_match) for point in own]
        assert {speed for _, speed in recorded.values(run, "frontier/examples_per_second")} == {100 / 3}
    job = recorded.runs("job")["small"]
    assert job.info.status == "FINISHED"
    assert recorded.values(job, "cost/steps") == [(0, sum(s.spec.steps for s in plan.unique_stages.values()))]
    assert {"report.html", "frontier.csv"} <= recorded.artifacts(job)

    written = b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    for secret in passwords.iterdir():
        assert secret.read_text() not in said + (tmp_path / "mlflow.log").read_text()
        assert secret.read_bytes() not in written
