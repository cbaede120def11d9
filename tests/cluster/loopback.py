"""A real Ray cluster on this machine's loopback addresses, started by clusters/local.sh, and ways to lose its nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from commands import free_port, start, stepwise

CLUSTERS = Path(__file__).parents[2] / "clusters"
PATIENCE_SECONDS = 600
"""How long a busy machine may take for one thing."""


@dataclass
class Loopback:
    """A cluster with a folder for its file, its token, jobs and a store. The folder has to be made first."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    _scripts: list[subprocess.Popen[str]] = field(default_factory=list)
    _nodes: dict[str, psutil.Process] = field(default_factory=dict)

    def start(self, workers: int = 1) -> None:
        """Start a head (127.0.0.1) and workers (127.0.0.2 and on), again after ``end``."""
        self._run({"WORKERS": str(workers)}, until="dashboard")
        (self.folder / "cluster.yaml").write_text(
            f"address: http://127.0.0.1:{self.dashboard}\n"
            f"store: {self.folder / 'stepwise-store'}\n"
            f"token_file: {self.folder / 'token'}\n"
            "ship_package: true\n"
        )

    def join(self, address: str) -> None:
        """One more node."""
        self._run({}, "join", address, until="worker node")

    def _run(self, environment: dict[str, str], *words: str, until: str) -> None:
        everything = self._environment() | {
            "PORT": str(self.port),
            "DASHBOARD_PORT": str(self.dashboard),
            "TOKEN": str(self.folder / "token"),
            **self.environment,
            **environment,
        }
        command = [CLUSTERS / "local.sh", *words]
        script = subprocess.Popen(command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._scripts.append(script)
        said = ""
        for line in script.stdout:
            said += line
            if node := re.match(r"\w+ node: process (\d+), ([\d.]+),", line):
                self._nodes[node[2]] = psutil.Process(int(node[1]))
            if line.startswith(until):
                return
        pytest.fail(said)

    def lose(self, address: str) -> None:
        """A machine is gone: SIGKILL for every process of a node, all at once."""
        for process in [self._nodes[address], *self._processes(address)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def drain(self, address: str, seconds: int) -> None:
        """Announce that a node goes, as a spot machine does."""
        environment = self._environment() | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
        }
        subprocess.run([CLUSTERS / "drain.sh", str(seconds), address], env=environment, check=True)

    @staticmethod
    def _environment() -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
        return ours | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def workers(self, address: str) -> list[psutil.Process]:
        """The Train workers on a node."""
        return [process for process in self._processes(address) if process.name().startswith("ray::RayTrain")]

    @contextmanager
    def stopped(self, *addresses: str) -> Iterator[None]:
        """Stop the Train workers of these nodes meanwhile: none ends and leaves its place to a lost one."""
        workers = [worker for address in addresses for worker in self.workers(address)]
        for worker in workers:
            worker.suspend()
        try:
            yield
        finally:
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.resume()

    def _processes(self, address: str) -> list[psutil.Process]:
        return self._nodes[address].children(recursive=True)

    def end(self) -> None:
        for script in self._scripts:
            script.send_signal(signal.SIGTERM)
        for script in self._scripts:
            script.wait(PATIENCE_SECONDS)
            script.stdout.close()
        self._scripts.clear()

    def there(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command about this cluster, from outside of it."""
        return stepwise(*words, "--cluster", "cluster.yaml", cwd=self.folder)

    def follow(self, job: str) -> subprocess.Popen[str]:
        return start("logs", "-f", job, "--cluster", "cluster.yaml", cwd=self.folder)


@contextmanager
def loopback(folder: Path, workers: int = 1, **environment: str) -> Iterator[Loopback]:
    """A running cluster."""
    pytest.importorskip("aiohttp_cors", reason="the dashboard needs ray[default]: pip install '.[cluster]'")
    cluster = Loopback(folder, environment)
    try:
        cluster.start(workers)
        yield cluster
    finally:
        cluster.end()


def await_that(seen: Callable[[], object], what: str) -> None:
    """Wait until it is seen; fail with ``what`` was waited for."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not seen():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def first_stages(lines: Iterator[str], trials: int) -> str:
    """What was said until so many trials had committed a stage."""
    said = ""
    for line in lines:
        said += line
        if said.count("stage 0 of") == trials:
            break
    return said
