"""The real command with real Ray, killed: its driver or a training worker, by SIGKILL at a random time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from faults.oracle import Result, leftovers, result

JOB = """
name = "faults"
[task]
digits = [1, 2]
[model]
layers = 1
width = 32
heads = 2
[schedule]
tokens_per_stage = 3
stage_steps = 200
pretrain_steps = 100
consolidation_stages = 1
[training]
learning_rate = 3e-3
[evaluation]
speed_examples = 1
[resources]
cpus_per_worker = 0.5
"""
MARK = "STEPWISE_FAULTS"
PATIENCE = 240.0


@dataclass(frozen=True)
class Kill:
    """One killed command, and what came of running it again."""

    victim: str
    delivered: bool
    identical: bool
    left: tuple[str, ...]
    lost: int
    seconds: float
    """From the second start to its end."""


class Command:
    """``stepwise run`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "job.toml").write_text(JOB)

    @property
    def store(self) -> Path:
        return self.folder / "stepwise-store"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "orchestrator", "run", "job.toml"]
        environment = {**os.environ, MARK: str(self.folder)}
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)

    def finish(self) -> int:
        return self.start().wait(PATIENCE)

    def processes(self) -> dict[int, str]:
        """By number, the command lines of this folder's processes, zombies left out."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def committed(self) -> set[Path]:
        return set(self.store.glob("stages/*/manifest.json"))

    def training(self, process: subprocess.Popen[bytes]) -> list[int]:
        """Wait for the first committed stage; the workers that train then."""
        end = time.monotonic() + PATIENCE
        while not self.committed() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        return [pid for pid, command in self.processes().items() if command.startswith("ray::RayTrainWorker")]


def control(folder: Path) -> Result:
    command = Command(folder / "ray-control")
    if command.finish():
        raise RuntimeError((command.folder / "output.txt").read_text()[-2000:])
    return result(command.store)


def kill(folder: Path, victim: str, wanted: Result, dice: random.Random) -> Kill:
    """``victim``: driver, worker. A killed worker's command goes on by itself."""
    command = Command(folder / f"ray-{victim}-{dice.randrange(10**6)}")
    process = command.start()
    workers = command.training(process)
    time.sleep(dice.uniform(0, 1.5))
    before = {path: json.loads(path.read_text())["attempt"] for path in command.committed()}
    target = process.pid if victim == "driver" else workers[0] if workers else 0
    delivered = bool(target) and process.poll() is None
    if delivered:
        os.kill(target, signal.SIGKILL)
    process.wait(PATIENCE)
    started = time.monotonic()
    code = command.finish()
    lost = sum(
        not path.exists() or json.loads(path.read_text())["attempt"] != attempt for path, attempt in before.items()
    )
    left = (*leftovers(command.store), *_alive(command))
    identical = code == 0 and result(command.store) == wanted
    return Kill(victim, delivered, identical, left, lost, time.monotonic() - started)


def _alive(command: Command) -> list[str]:
    """What still runs half a minute after the last command."""
    end = time.monotonic() + 30
    while command.processes() and time.monotonic() < end:
        time.sleep(0.5)
    return list(command.processes().values())
