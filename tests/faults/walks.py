"""A driver in miniature that can be killed by the hundred: a real trial walked in a forked process, without Ray.

What it does is logged with one ``write`` a line, which a SIGKILL cannot undo: the log is the history that
the store is held to.
"""

from __future__ import annotations

import json
import os
import resource as limits
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from orchestrator.config import Evaluation, Job, MultiplicationTask, Schedule, ScratchModel, Stability, Training
from orchestrator.errors import StepwiseError
from orchestrator.failpoints import ENVIRONMENT
from orchestrator.method.train import Progress
from orchestrator.plan import Plan, PlannedStage, build_plan
from orchestrator.store import Manifest, StageStore, save_job, sweep
from orchestrator.trials import snapshot
from orchestrator.trials.data import prepare_data
from orchestrator.trials.progress import ProgressFile
from orchestrator.trials.runner import Hooks, StageRunner, Workplace
from orchestrator.trials.walk import walk

JOB = Job(
    name="faults",
    task=MultiplicationTask(digits=(1, 2)),
    model=ScratchModel(layers=1, width=32, heads=2, dropout=0.1),
    schedule=Schedule(tokens_per_stage=3, stage_steps=12, pretrain_steps=8, consolidation_stages=1),
    training=Training(learning_rate=3e-3, batch_size=16),
    evaluation=Evaluation(examples=32, speed_examples=1, speed_batch=4),
    stability=Stability(probe_examples=8),
)
"""The quickstart, shrunk: five stages, dropout so that the generators count, AdamW reset at every removal."""

STAGES = 5


@contextmanager
def unlimited() -> Iterator[None]:
    """Files may grow inside: limits are for the product, not for its log."""
    limit = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (limit[1], limit[1]))
    try:
        yield
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, limit)


@dataclass(frozen=True)
class Log:
    """What drivers of one store did, over all their lives."""

    path: Path

    def write(self, event: str, **details: Any) -> None:
        line = json.dumps({"event": event, "pid": os.getpid(), "at": time.monotonic(), **details}) + "\n"
        with unlimited():
            handle = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.write(handle, line.encode())
            os.close(handle)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Those of these kinds, in the order in which they happened."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] in kinds]


@dataclass(frozen=True)
class Armed:
    """A fault that waits for its place in one stage; ``turn`` 1 is the first passage since the stage began."""

    place: str
    stage: int = 0
    turn: int = 1
    action: str = "kill"


def drive(root: Path, log: Log, armed: Armed | None = None, after: Callable[[Plan], None] = lambda plan: None) -> None:
    """What a command does on a store, up to the end of its trial. ``after`` every stage, and once at the end."""
    torch.set_num_threads(1)
    store = StageStore(root)
    if armed and armed.place == "any":
        _arm(armed)
    sweep(root)
    data = prepare_data(JOB, store)
    plan = build_plan(JOB, data.total_tokens)
    save_job(plan, store)
    trial, trained = plan.trials[0], set[str]()
    progress_file = ProgressFile(root, JOB.name, trial.name)

    def watch(stage: PlannedStage, progress: Progress) -> None:
        progress_file.write(stage, progress.step, progress.removed_tokens)
        begins = stage.key not in trained
        trained.add(stage.key)
        log.write("begin" if begins else "step", key=stage.key, stage=stage.index, step=progress.step)

    class Runner(StageRunner):
        def adopt(self, stage: PlannedStage) -> Manifest | None:
            if armed and armed.place != "any" and armed.stage == stage.index:
                _arm(armed)
            return super().adopt(stage)

    log.write("start")
    for chain in walk(trial, Runner(Workplace(JOB, data, store), Hooks(watch))):
        manifest = chain.attempts[-1].manifest
        log.write("acknowledged", key=manifest.key, attempt=manifest.attempt)
        after(plan)


def _arm(armed: Armed) -> None:
    os.environ[ENVIRONMENT] = f"{armed.place}:{armed.turn}:{armed.action}"


def snapshots_always() -> None:
    """A snapshot after every block, so that resuming is met at every kill."""
    snapshot.LEAST_SECONDS, snapshot.SHARE = 0.0, float("inf")


@dataclass(frozen=True)
class Ended:
    """How a child ended. ``struck``: the failpoints it met that were armed."""

    code: int
    said: str
    seconds: float
    struck: tuple[str, ...] = field(default=())

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def started(work: Callable[[], None], said: Path) -> int:
    """Begin ``work`` in a forked process that writes its errors to a file; its number."""
    pid = os.fork()
    if pid == 0:
        _become(work, said)
    return pid


def child(work: Callable[[], None], folder: Path, kill_after: float | None = None) -> Ended:
    """Run ``work`` in a forked process; SIGKILL it after some seconds if it is still there."""
    said, began = folder / "said.txt", time.monotonic()
    pid = started(work, said)
    if kill_after is not None:
        _kill_if_alive(pid, kill_after)
    _, status = os.waitpid(pid, 0)
    text = said.read_text(errors="replace")
    struck = tuple(_struck(text))
    return Ended(os.waitstatus_to_exitcode(status), text, time.monotonic() - began, struck)


def _become(work: Callable[[], None], said: Path) -> None:
    code = 70
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        handle = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(handle, 2)
        work()
        code = 0
    except StepwiseError as error:
        code = error.exit_code
        with unlimited():
            os.write(2, f"{error}\n".encode())
    except BaseException:
        with unlimited():
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _kill_if_alive(pid: int, seconds: float) -> None:
    """The child is not reaped yet, so its number cannot be another's."""
    ends = os.pidfd_open(pid)
    if not select.select([ends], [], [], seconds)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ends)


def _struck(said: str) -> Iterator[str]:
    for line in said.splitlines():
        if line.startswith("failpoint "):
            yield line.split()[1].rstrip(":")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
