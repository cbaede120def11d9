"""The real command killed at random times: Ray, MLflow and all, the quickstart's job file shrunk to seconds.

A case is one store: ``stepwise run``, SIGKILL to the command, to a training worker or to another process below it at
random moments, several in one life, the command again, until it ends by itself with exit code 0. Nothing of the
product is changed but that snapshots are taken after every block (``often``), as its stages are too short for one
otherwise; what its workers do is read from the progress files that they write for people.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
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

from faults.figures import REPOSITORY, Figures
from faults.oracle import Result, leftovers, lost_of, result
from faults.outbox import points_in, unfinished_runs
from faults.walks import say

from orchestrator.store import StageStore, saved_plan
from orchestrator.store.manifest import MANIFEST
from orchestrator.store.stages import CLAIM

NAME = "small"
TRIALS = 3
"""Of the quickstart, at most so many stages are in training when a fault strikes."""
SHRUNK = (
    f"name={NAME}",
    "task.digits=[1,2]",
    "model.layers=1",
    "model.width=32",
    "model.heads=2",
    "model.dropout=0.1",  # so that the generators count
    "schedule.stage_steps=300",
    "schedule.pretrain_steps=400",
    "schedule.consolidation_stages=2",
    "schedule.cooldown_stages=1",
    "evaluation.speed_examples=2",
    "resources.cpus_per_worker=0.5",  # two of its three trials at a time on one core
)
RUN = (sys.executable, "-m", "orchestrator", "run", str(REPOSITORY / "jobs" / "quickstart.toml"), *SHRUNK)
OFTEN = Path(__file__).parent / "often"
LOOK_SECONDS = 0.05
PATIENCE = 900.0
"""A command that takes longer has been caught in something: it is ended and reported."""
CONTROLS = ("control", "second control", "third control")
"""On a busy machine Ray may give up while it starts."""
GONE_WITHIN = 60.0
"""What a killed command leaves running may take so long to notice."""
WORKER = "RayTrainWorker"
AT_WORK = f"{WORKER} in a stage"
"""One that holds a stage's claim: it trains, measures or commits."""
FAULTS = {"driver": 3, AT_WORK: 9, WORKER: 3, "helper": 5}
"""Whom a fault hits, in these proportions: a worker without a stage begins, waits or ends. A helper is
whatever else runs below the command."""
SOON = 4.0
"""Workers and helpers are killed at a random moment of so many seconds from when one of the kind is there."""
PER_CASE = (12, 24)
HEAD = {"gcs_server", "raylet"}
"""Without them Ray takes a minute to give up, so they are hit seldom: ..."""
HEAD_SHARE = 0.2
"""... as often as this, where another helper would be hit always."""
SEEN = re.compile(r"^(\S+)  stage (\d+) of ", re.MULTILINE)


@dataclass
class Sight:
    """What the progress files showed. A step that does not grow is an attempt that began."""

    root: Path
    begun: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)
    """Stages that were begun after they were committed."""
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
                    self._note(progress["stage_key"], progress["step"], progress["at"])

    def _note(self, key: str, step: int, at: float) -> None:
        if key not in self._reached or step <= self._reached[key]:
            self.begun[key] += 1
            with suppress(FileNotFoundError):
                if at > (self.root / "stages" / key / MANIFEST).stat().st_mtime:
                    self.again.append(key)
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
        environment = {
            **os.environ,
            "STEPWISE_TEST": str(home),
            "TMPDIR": str(home / "tmp"),
            "RAY_TMPDIR": str(home),
            "PYTHONPATH": os.pathsep.join([str(OFTEN), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(
                RUN,
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

    def targets(self, fault: str) -> dict[str, list[int]]:
        """Whom a fault of this kind can hit now, by what they are."""
        if fault == "driver":
            return {fault: [self.process.pid]}
        found: dict[str, list[int]] = {}
        for pid in descendants(self.process.pid):
            kind = kind_of(pid)
            if kind == fault or (fault == "helper" and kind not in (None, WORKER, AT_WORK)):
                found.setdefault(kind, []).append(pid)
        return found

    def strike(self, fault: str, dice: random.Random) -> str | None:
        """SIGKILL, and what got it; None if nobody of that kind is there. The command is not reaped yet."""
        targets = self.targets(fault)
        weights = [HEAD_SHARE if kind in HEAD else 1.0 for kind in sorted(targets)]
        if not targets:
            return None
        kind = dice.choices(sorted(targets), weights)[0]
        pid = dice.choice(sorted(targets[kind]))
        if fault == "driver":
            os.kill(pid, signal.SIGKILL)
            self.process.wait()
            return kind if self.process.returncode == -signal.SIGKILL else None
        with suppress(OSError):
            handle = os.pidfd_open(pid)  # from here on the number is this process's
            try:
                if kind_of(pid) != kind:
                    return None
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return kind if select.select([handle], [], [], 5)[0] else None
            finally:
                os.close(handle)
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


def kind_of(pid: int) -> str | None:
    """What a process is: a Ray worker by its title, any other by its program or script; None if it has ended."""
    with suppress(OSError, IndexError):
        words = Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")
        if words[0].startswith("ray::"):
            title = words[0].removeprefix("ray::").split(".")[0].strip()
            return AT_WORK if title == WORKER and _holds_claim(pid) else title
        script = next((word for word in words[1:] if word.endswith(".py")), words[0])
        return Path(script).name or None
    return None


def _holds_claim(pid: int) -> bool:
    handles = Path("/proc", str(pid), "fd").iterdir()
    return any(os.readlink(handle).endswith(f"/{CLAIM}") for handle in handles)


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
        for name in CONTROLS:
            home = self._home(name)
            command = Command(home)
            if command.process.wait(PATIENCE) == 0:
                break
            say(f"the control ended with {command.process.returncode}: {command.words[-500:]}")
        else:
            raise SystemExit("no control ends well")
        self.seconds = command.seconds()
        self.control: Result = result(home / "stepwise-store", NAME)
        self.points = points_in(home / "stepwise-store" / "mlflow.db", NAME)
        say(f"control: {self.seconds:.0f} s, {len(self.control.files)} stages, {len(self.points)} points")

    def _home(self, name: str) -> Path:
        home = self.folder / name
        (home / "tmp").mkdir(parents=True)
        return home

    def kills(self, number: int, dice: random.Random) -> None:
        """So many faults, in as many cases as that takes."""
        self.figures.planned += number
        while number > 0 and time.monotonic() < self.deadline:
            self.number += 1
            faults = dice.choices(list(FAULTS), list(FAULTS.values()), k=min(number, dice.randint(*PER_CASE)))
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
        self._judge("together", home, sight, {}, Counter())

    def _case(self, home: Path, faults: list[str], dice: random.Random) -> int:
        """Returns how many faults were delivered."""
        name, sight, struck = home.name, Sight(home / "stepwise-store"), Counter[str]()
        acknowledged: dict[str, str] = {}
        command, due = Command(home), None
        while True:
            sight.look()
            if command.process.poll() is not None:
                if command.process.returncode not in (0, 1, 3):
                    self.figures.failures.append(f"{name}: {command.process.returncode}: {command.words[-500:]}")
                self._acknowledge(acknowledged, home, command)
                if command.process.returncode == 0:
                    break
                say(f"{name}: ended with {command.process.returncode}: {command.words[-300:]}")
                command, due = Command(home), None
            elif (done := struck.total()) < len(faults) and time.monotonic() < self.deadline:
                fault = faults[done]
                if due is None:
                    due = self._moment(command, fault, dice)
                elif due <= time.monotonic():
                    due = None
                    if hit := command.strike(fault, dice):
                        say(f"{name}: killed {hit} after {command.seconds():.0f} s")
                        struck[hit] += 1
                        self._acknowledge(acknowledged, home, command)
                        if fault == "driver":
                            sight.struck_at, command = time.monotonic(), Command(home)
            if command.seconds() > PATIENCE:
                self.figures.failures.append(f"{name}: takes for ever: {command.words[-500:]}")
                command.strike("driver", dice)
            time.sleep(LOOK_SECONDS)
        self._judge(name, home, sight, acknowledged, struck)
        return struck.total()

    def _moment(self, command: Command, fault: str, dice: random.Random) -> float | None:
        """When to strike: a command at any time of its life, anything else soon after it is there. None: not yet."""
        if fault == "driver":
            return time.monotonic() + dice.uniform(0.5, self.seconds)
        return time.monotonic() + dice.uniform(0.0, SOON) if command.targets(fault) else None

    def _acknowledge(self, acknowledged: dict[str, str], home: Path, command: Command) -> None:
        """What stands in the store now, and what the command has said, must stay."""
        store = StageStore(home / "stepwise-store")
        for key in store.stage_keys():
            if manifest := store.read(key):
                acknowledged.setdefault(key, manifest.attempt)
        plan = saved_plan(NAME, store)
        chains = {trial.name: trial.stages for trial in plan.trials} if plan else {}
        for trial, stage in SEEN.findall(command.words):
            if chains[trial][int(stage)].key not in acknowledged:
                self.figures.stages_lost += 1
                self.figures.failures.append(f"{home.name}: said and not there: {trial} stage {stage}")

    def _judge(self, name: str, home: Path, sight: Sight, acknowledged: dict[str, str], struck: Counter[str]) -> None:
        figures, faults, root = self.figures, struck.total(), home / "stepwise-store"
        missing = lost_of(root, acknowledged.items())
        ended, points = result(root, NAME), points_in(root / "mlflow.db", NAME)
        differs = ended != self.control
        left = self._left(home)
        absent = sum((Counter(self._places(self.points)) - Counter(set(self._places(points)))).values())
        more = Counter(self._places(points)) - Counter(self._places(self.points))
        doubled = more.total()
        again = sight.begun.total() - len(sight.begun)
        twice = [f"{key} begun after it was committed" for key in sight.again]
        twice += [f"{again} stages begun again after {faults} faults"] * (again > TRIALS * faults)
        figures.cases += 1
        figures.delivered += faults
        figures.by_kind += struck
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
        metrics = ", ".join(sorted({metric for _, metric, _ in more}))
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
