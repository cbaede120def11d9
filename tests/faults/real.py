"""The real command killed at random times: Ray, MLflow and all, the quickstart shrunk to seconds.

A case is one store: ``stepwise run``, SIGKILL to the command or to one of its Ray processes at random moments, the
command again, until it ends by itself with exit code 0. Nothing of the product is changed or slowed down; what its
workers do is read from the progress files that they write for people.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from faults.figures import Figures
from faults.oracle import Result, leftovers, lost_of, result
from faults.outbox import points_in, unfinished_runs
from faults.walks import say

from orchestrator.store import StageStore, saved_plan

NAME = "small"
JOB = f"""
name = "{NAME}"
methods = ["explicit_cot", "stepwise"]
[task]
digits = [1, 2]
[model]
layers = 1
width = 32
heads = 2
dropout = 0.1
[schedule]
tokens_per_stage = 3
stage_steps = 100
pretrain_steps = 100
consolidation_stages = 1
[training]
learning_rate = 3e-3
[evaluation]
speed_examples = 2
[resources]
cpus_per_worker = 0.5
"""
LOOK_SECONDS = 0.05
PATIENCE = 600.0
"""A command that takes longer has been caught in something: it is ended and reported."""
GONE_WITHIN = 60.0
"""What a killed command leaves running may take so long to notice."""
FAULTS = ("driver", "worker")
SEEN = re.compile(r"^(\S+)  stage (\d+)/\d+", re.MULTILINE)


@dataclass
class Sight:
    """What the progress files showed. A step that does not grow is an attempt that began."""

    root: Path
    begun: Counter[str] = field(default_factory=Counter)
    lost_steps: list[int] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    struck_at: float | None = None
    """When the command was killed, until an attempt begins."""
    _reached: dict[str, int] = field(default_factory=dict)
    _files: dict[Path, int] = field(default_factory=dict)

    def look(self) -> None:
        for path in self.root.glob("jobs/*/trials/*.json"):
            with suppress(OSError, ValueError):
                changed = path.stat().st_mtime_ns
                if self._files.get(path) != changed:
                    progress = json.loads(path.read_text())
                    self._files[path] = changed
                    self._note(progress["stage_key"], progress["step"])

    def _note(self, key: str, step: int) -> None:
        if key not in self._reached or step <= self._reached[key]:
            self.begun[key] += 1
            if key in self._reached:
                self.lost_steps.append(self._reached[key] - step)
            if self.struck_at:
                self.recovery_seconds.append(time.monotonic() - self.struck_at)
                self.struck_at = None
        self._reached[key] = step


class Command:
    """One life of ``stepwise run``."""

    def __init__(self, home: Path) -> None:
        self.home, self.started = home, time.monotonic()
        self.said = home / f"said-{time.monotonic_ns()}.txt"
        environment = {**os.environ, "STEPWISE_TEST": str(home), "TMPDIR": str(home / "tmp"), "RAY_TMPDIR": str(home)}
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "run", "job.toml"],
                cwd=home,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def words(self) -> str:
        return self.said.read_text(errors="replace")

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def strike(self, fault: str, dice: random.Random) -> str | None:
        """SIGKILL, and who got it; None if nobody of that kind is there. The command is not reaped yet."""
        if fault == "driver":
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return "driver" if self.process.returncode == -signal.SIGKILL else None
        workers = {pid: title for pid in descendants(self.process.pid) if (title := _ray_title(pid))}
        if not workers:
            return None
        pid = dice.choice(sorted(workers))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return workers[pid] if _ended(pid) else None
        return None


def descendants(pid: int) -> list[int]:
    """Processes below a process of ours, at this moment."""
    parents: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(process.name))
    found, open_ = [], [pid]
    while open_:
        children = parents.get(open_.pop(), [])
        found += children
        open_ += children
    return found


def _ray_title(pid: int) -> str | None:
    """What a Ray worker process is at, unless it waits for something to do."""
    with suppress(OSError):
        title = Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")[0]
        return title.strip() if title.startswith("ray::") and not title.startswith("ray::IDLE") else None


def _ended(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(LOOK_SECONDS)
    return False


def processes_of(home: Path) -> list[int]:
    """What runs with the mark of a case in its environment, or of one below. Who holds a port is a process."""
    found, mark = [], f"STEPWISE_TEST={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


class Real:
    """Runs cases and holds each to the control."""

    def __init__(self, folder: Path, figures: Figures, seconds: float) -> None:
        self.folder, self.figures, self.number = folder, figures, 0
        self.deadline = time.monotonic() + seconds
        figures.points_missing = figures.points_doubled = 0
        home = self._home("control")
        command = Command(home)
        if code := command.process.wait(PATIENCE):
            raise SystemExit(f"the control ended with {code}: {command.words[-500:]}")
        self.seconds = command.seconds()
        self.control: Result = result(home / "stepwise-store", NAME)
        self.points = points_in(home / "stepwise-store" / "mlflow.db", NAME)
        say(f"control: {self.seconds:.0f} s, {len(self.control.files)} stages, {len(self.points)} points")

    def _home(self, name: str) -> Path:
        home = self.folder / name
        (home / "tmp").mkdir(parents=True)
        (home / "job.toml").write_text(JOB)
        return home

    def kills(self, number: int, dice: random.Random) -> None:
        """So many faults, in as many cases as that takes."""
        self.figures.planned += number
        while number > 0 and time.monotonic() < self.deadline:
            self.number += 1
            faults = [dice.choice(FAULTS) for _ in range(min(number, dice.randint(4, 8)))]
            number -= self._case(self._home(f"case{self.number}"), faults, dice)

    def together(self) -> None:
        """The command twice at once on one store: both end, and no stage is trained twice."""
        home = self._home("together")
        sight, pair = Sight(home / "stepwise-store"), [Command(home), Command(home)]
        end = time.monotonic() + PATIENCE
        while any(command.process.poll() is None for command in pair) and time.monotonic() < end:
            sight.look()
            time.sleep(LOOK_SECONDS)
        for command in pair:
            if command.process.poll() != 0:
                self.figures.failures.append(f"together: {command.process.poll()}: {command.words[-500:]}")
        self._judge("together", home, sight, {}, 0)

    def _case(self, home: Path, faults: list[str], dice: random.Random) -> int:
        """Returns how many faults were delivered."""
        name, sight, struck = home.name, Sight(home / "stepwise-store"), []
        acknowledged: dict[str, str] = {}
        command, due = Command(home), self._moment(dice, faults[0])
        while True:
            sight.look()
            if command.process.poll() is not None:
                if command.process.returncode not in (0, 1, 3):
                    self.figures.failures.append(f"{name}: {command.process.returncode}: {command.words[-500:]}")
                self._acknowledge(acknowledged, home, command)
                if command.process.returncode == 0:
                    break
                say(f"{name}: ended with {command.process.returncode}: {command.words[-300:]}")
                command = Command(home)
            elif len(struck) < len(faults) and due <= time.monotonic() < self.deadline:
                fault = faults[len(struck)]
                due = time.monotonic() + 1
                if hit := command.strike(fault, dice):
                    say(f"{name}: killed {hit} after {command.seconds():.0f} s")
                    struck.append(hit)
                    self._acknowledge(acknowledged, home, command)
                    if fault == "driver":
                        sight.struck_at, command = time.monotonic(), Command(home)
                    due = self._moment(dice, faults[len(struck)] if len(struck) < len(faults) else fault)
            elif command.seconds() > PATIENCE:
                self.figures.failures.append(f"{name}: takes for ever: {command.words[-500:]}")
                command.strike("driver", dice)
            time.sleep(LOOK_SECONDS)
        self._judge(name, home, sight, acknowledged, len(struck))
        return len(struck)

    def _moment(self, dice: random.Random, fault: str) -> float:
        """A driver is killed at any time of its life; a worker soon after what was before."""
        return time.monotonic() + dice.uniform(0.5, 1.1 * self.seconds if fault == "driver" else 0.5 * self.seconds)

    def _acknowledge(self, acknowledged: dict[str, str], home: Path, command: Command) -> None:
        """What stands in the store now, and what the command has said, must stay."""
        store = StageStore(home / "stepwise-store")
        for key in store.stage_keys():
            if manifest := store.read(key):
                acknowledged.setdefault(key, manifest.attempt)
        plan = saved_plan(NAME, store)
        chains = {trial.name: trial.stages for trial in plan.trials} if plan else {}
        for trial, stage in SEEN.findall(command.words):
            if chains[trial][int(stage) - 1].key not in acknowledged:
                self.figures.stages_lost += 1
                self.figures.failures.append(f"{home.name}: said and not there: {trial} stage {stage}")

    def _judge(self, name: str, home: Path, sight: Sight, acknowledged: dict[str, str], faults: int) -> None:
        figures, root = self.figures, home / "stepwise-store"
        missing = lost_of(root, acknowledged.items())
        ended, points = result(root, NAME), points_in(root / "mlflow.db", NAME)
        differs = ended != self.control
        left = self._left(home)
        absent = sum((Counter(self._places(self.points)) - Counter(set(self._places(points)))).values())
        again = Counter(self._places(points)) - Counter(self._places(self.points))
        doubled = again.total()
        twice = [f"{key} begun {times} times" for key, times in sight.begun.items() if times > 1 + faults]
        figures.cases += 1
        figures.delivered += faults
        figures.stages_lost += len(missing)
        figures.frontiers_differing += differs
        figures.points_missing += absent
        figures.points_doubled += doubled
        figures.leftovers += len(left)
        figures.redone_twice += len(twice)
        figures.begun += sight.begun.total()
        figures.stages += len(sight.begun)
        figures.lost_steps += sight.lost_steps
        figures.recovery_seconds += sight.recovery_seconds
        said = [*(f"lost: {line}" for line in missing), *(f"left: {line}" for line in left), *twice]
        said += ["weights or frontier differ"] * differs
        metrics = ", ".join(sorted({metric for _, metric, _ in again}))
        said += [f"points missing {absent}, doubled {doubled} ({metrics})"] * bool(absent or doubled)
        figures.failures += [f"{name}: {line}" for line in said]
        say(f"{name}: {faults} faults, {sight.begun.total()} attempts of {len(sight.begun)} stages; {said or 'sound'}")
        shutil.rmtree(home, ignore_errors=True)

    @staticmethod
    def _places(points: Counter[tuple[str, str, int, float]]) -> list[tuple[str, str, int]]:
        """Without the values: speeds and times differ between two runs."""
        return [place[:3] for place in points.elements()]

    def _left(self, home: Path) -> list[str]:
        root, end = home / "stepwise-store", time.monotonic() + GONE_WITHIN
        while (running := processes_of(home)) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        found = [f"process {pid}" for pid in running] + leftovers(root)
        found += [str(path) for path in (*(root / "ray").glob("*"), *(home / "tmp").glob("*"))]
        return found + [f"{count} MLflow runs that never ended" for count in [unfinished_runs(root)] if count]


def real_kills(figures: Figures, kills: int, seed: int, seconds: float) -> None:
    """Until so many faults were delivered, or ``seconds`` have passed; then what was left out shows."""
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))  # Ray's sockets want a short path
    try:
        real = Real(folder, figures, seconds)
        real.kills(kills, random.Random(seed))
        if time.monotonic() < real.deadline:
            real.together()
    finally:
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
