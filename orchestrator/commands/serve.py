"""The MLflow server on a store, and its page of the frontier."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import InputError, Problem, StepwiseError
from orchestrator.store import StageStore, job_folder, saved_plans
from orchestrator.tracking import Tracker, frontier_url, ui_command, ui_environment
from orchestrator.tracking.shared import ADMIN, SharedServer

WAIT_SECONDS = 0.2


def serve_mlflow(root: Path, port: int, shared: SharedServer | None = None) -> int:
    """Run the MLflow server on the store until it is interrupted: for this machine, or ``shared``.

    On a desktop the newest job's page opens. What the server itself says goes to a file: a page is easily lost in it.
    Returns the exit code.
    """
    store = StageStore(root)
    plans = [plan for plan in saved_plans(store) if plan.job.tracking.uri is None]
    if not plans:
        found = "no job of this store is recorded in its own MLflow"
        raise InputError(Problem("MLF003", str(root), found, "run a job first, or open the server its job names"))
    host = shared.host if shared else "127.0.0.1"
    _check_free(host, port)
    base, log = f"http://{shared.address if shared else host}:{port}", root / "mlflow-server.log"
    print(f"starting MLflow on the records in {root}; it takes a quarter of a minute", flush=True)
    command, environment = (
        (shared.command, shared.environment) if shared else (ui_command(root, port), ui_environment())
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        pages = {plan.job.name: frontier_url(base, Tracker(plan, store).experiment_id(), plan.job) for plan in plans}
        with _running(command, environment, log) as server:
            _await(server, host, port)
            if server.poll() is None:
                _announce(root, base, pages, shared)
            ended = f"the MLflow server ended with code {server.wait()}"
            raise StepwiseError(Problem("MLF002", base, ended, f"{log} says why"))
    except KeyboardInterrupt:
        return 0


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server; it ends with the block."""
    with log.open("wb") as said:
        server = subprocess.Popen(  # noqa: S603
            command, env=environment, start_new_session=True, stdout=said, stderr=said
        )
    try:
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _announce(root: Path, base: str, pages: dict[str, str], shared: SharedServer | None) -> None:
    who = f"with a password (user {ADMIN}, {shared.password_file})" if shared else "for this machine only"
    print(f"MLflow on {base} {who}; Ctrl-C ends it. The frontier of", flush=True)
    for name, page in pages.items():
        print(f"  {name}: {page}", flush=True)
    newest = max(pages, key=lambda name: (job_folder(root, name) / "job.json").stat().st_mtime)
    if _has_desktop():
        webbrowser.open(pages[newest])


def _await(server: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Until it answers, or has ended."""
    while server.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex((host, port)) == 0:
                return
        time.sleep(WAIT_SECONDS)


def _has_desktop() -> bool:
    """Return whether a page would open in a window, not in the terminal or in a test."""
    shown = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(shown) and sys.stdout.isatty()


def _check_free(host: str, port: int) -> None:
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind((host, port))
        except OSError:
            raise InputError(Problem("CLI004", f"{host}:{port}", "is in use", "name another --port")) from None
