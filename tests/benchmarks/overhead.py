"""What orchestration costs: ``stepwise run`` of one trial against the bare walk through the same stages.

The command is the real one, in a process of its own on an empty store, with Ray and MLflow. Times are
those at which stages were committed. Processes of the command are known by a mark in their environment,
which Ray's daemons inherit; their memory is the sum of their proportional set sizes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import torch
from bench import STEPWISE, Figure, Side, arguments, console, finish, table
from ours import ALLOCATOR, CPU, Ours, Size

from orchestrator.config import load_job
from orchestrator.plan import build_plan
from orchestrator.store import Manifest, StageStore, plan_for
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

MARK = "STEPWISE_BENCHMARK"
SIZE = Size((3, 3), 64)
TOKENS = 24
POLL_SECONDS, MEMORY_SECONDS = 0.25, 2.0

JOB = """
name = "overhead"
methods = ["explicit_cot"]
seeds = {seeds}
[task]
digits = [3, 3]
train_examples = 20_000
[model]
layers = 2
width = 128
heads = 4
[schedule]
tokens_per_stage = {tokens}
stage_steps = {steps}
[training]
batch_size = 64
[evaluation]
examples = 250
speed_examples = 2
speed_batch = 16
"""


@dataclass(frozen=True)
class Work:
    """A job of explicit CoT: ``steps`` optimizer steps in ``stages`` equal stages, after a short first one."""

    steps: int
    stages: int
    seeds: int = 1

    def job(self, folder: Path) -> Path:
        file = folder / "overhead.toml"
        numbers = {"tokens": TOKENS // self.stages, "steps": self.steps // self.stages}
        file.write_text(JOB.format(seeds=list(range(self.seeds)), **numbers))
        return file


@dataclass
class Family:
    """All processes of a command, daemons and their children included, as they were seen from time to time."""

    mark: str
    ours: dict[tuple[int, float], bool] = field(default_factory=dict)
    cpu: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)
    history: list[tuple[float, float, float]] = field(default_factory=list)
    """(time, CPU seconds of training workers, of all others)."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes by kind of process, when they were most in sum."""

    def look(self, *, memory: bool) -> None:
        """Note the CPU time of every living member, and their memory if it is asked for."""
        sizes: dict[str, int] = defaultdict(int)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                key = process.pid, process.create_time()
                if key not in self.ours and (environment := process.environ()):  # empty right after the start
                    self.ours[key] = environment.get(MARK) == self.mark
                if self.ours.get(key):
                    times, kind = process.cpu_times(), _kind(process)
                    self.cpu[key] = kind, times.user + times.system
                    if memory:
                        sizes[kind] += process.memory_full_info().pss
        training = sum(seconds for kind, seconds in self.cpu.values() if kind == TRAINING)
        self.history.append((time.time(), training, sum(seconds for _, seconds in self.cpu.values()) - training))
        if sum(sizes.values()) > sum(self.memory.values()):
            self.memory = dict(sizes)

    @property
    def beside_the_command(self) -> float:
        """CPU seconds of all members but the command itself, which is our child."""
        return sum(seconds for kind, seconds in self.cpu.values() if kind != COMMAND)

    def spent(self, begin: float, end: float) -> tuple[float, float]:
        """CPU seconds between two moments: of training workers, of all others."""
        moments, *kinds = zip(*self.history, strict=True)
        training, others = (float(np.diff(np.interp([begin, end], moments, kind))[0]) for kind in kinds)
        return training, others

    def others_share(self, begin: float, end: float) -> float:
        """CPU time between two moments that was not the training workers', as a share of all of it."""
        training, others = self.spent(begin, end)
        return others / (training + others)


TRAINING, COMMAND = "training worker", "the command"
KINDS = {
    "RayTrainWorker": TRAINING,
    "TrainController": "Ray Train controller",
    "drive_trial": "Tune trial",
    "ImplicitFunc": "Tune trial",
    "gcs_server": "Ray daemons",
    "raylet": "Ray daemons",
    "ray/": "Ray daemons",
    "ray::IDLE": "idle Ray workers",
    "ray::": "other Ray workers",
    "mlflow": "MLflow",
    "stepwise": COMMAND,
}
"""A part of the command line, the first that matches counts -> what the process is."""


def _kind(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((kind for part, kind in KINDS.items() if part in line), "other")


@dataclass(frozen=True)
class Run:
    """A finished run: when it began, what it committed, by trial, and who took part."""

    began: float
    trials: list[list[Manifest]]
    family: Family

    @property
    def seconds(self) -> float:
        """From the first commit to the last, of the first trial."""
        return _span(self.trials[0])

    @property
    def first_step(self) -> float:
        """Seconds from the command to the first optimizer step, or a little more."""
        first = self.trials[0][0]
        return first.committed_at - first.metrics.train_seconds - first.metrics.evaluate_seconds - self.began

    @property
    def first_commit(self) -> float:
        return self.trials[0][0].committed_at

    @property
    def end(self) -> float:
        return self.trials[0][-1].committed_at

    @property
    def middle(self) -> float:
        """By then MLflow is imported and its database made, which begins with the first commit."""
        return (self.first_commit + self.end) / 2

    @property
    def boundaries(self) -> list[float]:
        """Seconds between the commits of neighbouring stages in which nothing was trained or measured."""
        return [
            later.committed_at - earlier.committed_at - later.metrics.train_seconds - later.metrics.evaluate_seconds
            for earlier, later in pairwise(self.trials[0])
        ]

    @property
    def gib(self) -> float:
        return sum(self.family.memory.values()) / 2**30


def _span(manifests: list[Manifest]) -> float:
    return manifests[-1].committed_at - manifests[0].committed_at


def run(work: Work, *, memory: bool = False) -> Run:
    """``stepwise run`` on a new store."""
    with tempfile.TemporaryDirectory() as folder:
        job, store, family = work.job(Path(folder)), Path(folder) / "store", Family(uuid.uuid4().hex)
        environment = os.environ | {MARK: family.mark, "RAY_USAGE_STATS_ENABLED": "0"}
        began = time.time()
        with (Path(folder) / "log").open("w+") as log:
            command = [STEPWISE, "run", job, "--store", store]
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
            looked = 0.0
            while process.poll() is None:
                now = time.monotonic()
                family.look(memory=memory and now - looked > MEMORY_SECONDS)
                looked = now if now - looked > MEMORY_SECONDS else looked
                time.sleep(POLL_SECONDS)
            log.seek(0)
            assert process.returncode == 0, log.read()
        return Run(began, _committed(job, StageStore(store)), family)


def _committed(job: Path, store: StageStore) -> list[list[Manifest]]:
    plan = plan_for(load_job(job), store)
    return [[m for stage in trial.stages if (m := store.manifest(stage))] for trial in plan.trials]


class Bare:
    """The same stages in one process: no Ray, no MLflow. Called: seconds from the first commit to the last."""

    def __call__(self, work: Work) -> float:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            job, store = load_job(work.job(Path(folder))), StageStore(Path(folder))
            data = prepare_data(job, store)
            plan = build_plan(job, data.total_tokens)
            runner = StageRunner(Workplace(job, data, store, CPU))
            *_, end = walk(plan.trials[0], runner)
            return _span([tried.manifest for tried in end.standing])


def steps_for(seconds: float) -> int:
    """Steps that take about so long on one thread, a multiple of the CoT's tokens."""
    with tempfile.TemporaryDirectory() as folder, Side(partial(Ours, SIZE, Path(folder)), ALLOCATOR) as ours:
        ours(0, 10, 1)
        return round(40 * seconds / ours(0, 40, 1) / TOKENS) * TOKENS


def quick_figures() -> tuple[list[Figure], list[Run]]:
    """One run and one walk of few and short stages."""
    work = Work(steps_for(6), 2)
    done = run(work, memory=True)
    with Side(Bare, ALLOCATOR) as bare:
        ratio = done.seconds / bare(work)
    _others_table([done])
    return _figures((ratio,), [done], done, None), [done]


def full_figures() -> tuple[list[Figure], list[Run]]:
    """Two pairs on a stage of 30 s; the same steps in many stages; two trials at a time."""
    work = Work(steps_for(30), 1)
    with Side(Bare, ALLOCATOR) as bare:
        before, first, second, after = bare(work), run(work), run(work), bare(work)
        bare_many = bare(Work(work.steps, 12))
    many = run(Work(work.steps, 12), memory=True)
    two = run(Work(work.steps // 2, 12, seeds=2), memory=True)
    extra = (many.seconds - (first.seconds + second.seconds) / 2) / 11
    bare_extra = (bare_many - (before + after) / 2) / 11
    console.print(
        f"12 stages instead of 1: {extra:.2f} s more a stage with its evaluation, in the bare walk {bare_extra:.2f}"
    )
    ratios = (first.seconds / before, second.seconds / after)
    _others_table([first, second])
    return _figures(ratios, [first, second], many, two), [first, second, many, two]


def _figures(ratios: tuple[float, ...], long: list[Run], many: Run, two: Run | None) -> list[Figure]:
    shares = tuple(done.family.others_share(done.first_commit, done.end) for done in long)
    later = tuple(done.family.others_share(done.middle, done.end) for done in long)
    figures = [
        Figure("first to last commit of a trial over the bare walk", ratios, 1.05, at_least=False),
        Figure("a stage boundary, evaluation not included", tuple(many.boundaries), 0.5, "seconds", at_least=False),
        Figure("command to first step", tuple(d.first_step for d in [*long, many]), 15, "seconds", at_least=False),
        Figure("CPU share of all but training", shares, 0.05, at_least=False),
        Figure("the same, in the second half of the run", later, 0.05, at_least=False),
        Figure("peak memory, one trial", (many.gib,), 3e9 / 2**30, "gib", at_least=False),
    ]
    if two:
        more = (two.gib - many.gib,)
        figures.append(Figure("peak memory, each further trial", more, 1.5e9 / 2**30, "gib", at_least=False))
    return figures


def _others_table(long: list[Run]) -> None:
    """What is paid once, and what a minute costs."""
    rows = []
    for number, done in enumerate(long, 1):
        spent = done.family.spent
        once = [spent(done.began, done.first_commit)[1], spent(done.first_commit, done.middle)[1]]
        rows.append([number, *once, 60 * spent(done.middle, done.end)[1] / (done.end - done.middle)])
    headings = ("run", "to the first commit", "first half after it", "a minute of the second half")
    table("CPU-seconds of all but training", headings, rows)


def _memory_table(run: Run) -> None:
    rows = sorted(((kind, size / 2**20) for kind, size in run.family.memory.items()), key=lambda row: -row[1])
    table(f"Memory at its peak, {len(run.trials)} trial(s)", ("processes", "MiB"), [(k, f"{v:.0f}") for k, v in rows])


def main() -> None:
    quick = arguments(__doc__).quick
    figures, runs = quick_figures() if quick else full_figures()
    for done in runs:
        if done.family.memory:
            _memory_table(done)
    own = sum(done.family.beside_the_command for done in runs)
    finish("overhead", *figures, quick=quick, own_seconds=own)


if __name__ == "__main__":
    main()
