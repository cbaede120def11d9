"""Processes that stop, meet, or want too much memory: real trials in forked drivers of one store."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from faults.oracle import Result, result, violations
from faults.walks import JOB, STAGES, Log, child, drive, snapshots_always, started

from orchestrator.errors import TrialError
from orchestrator.plan import build_plan
from orchestrator.ray.local import LIVING, ray_storage
from orchestrator.ray.train import problems_of
from orchestrator.store import StageStore

DEADLINE_SECONDS = 250.0


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The trial without faults."""
    snapshots_always()
    folder = tmp_path_factory.mktemp("control")
    assert child(partial(drive, folder / "store", Log(folder / "log")), folder).code == 0
    return result(folder / "store")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def stopped_in_its_second_stage(root: Path, log: Log, home: Path) -> Iterator[int]:
    """A driver that SIGSTOP caught while it trained; SIGCONT wakes it and it must end well."""
    pid = started(partial(drive, root, log), home / "stopped.txt")
    until(lambda: len({event["key"] for event in log.events("begin")}) == 2)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, (home / "stopped.txt").read_text()


def trained(log: Log, pid: int) -> list[str]:
    return [event["key"] for event in log.events("begin") if event["pid"] == pid]


def test_stage_of_a_stopped_driver_is_waited_for(tmp_path: Path, control: Result) -> None:
    root, log = tmp_path / "store", Log(tmp_path / "log")
    with stopped_in_its_second_stage(root, log, tmp_path) as stopped:
        other = started(partial(drive, root, log), tmp_path / "other.txt")
        until(lambda: len(log.events("acknowledged")) == 2)
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
    assert trained(log, stopped)[1] not in trained(log, other)
    assert violations(root, log, control, faults=0) == []


def test_driver_that_wakes_after_its_stage_was_taken_over_adopts_the_other_work(
    tmp_path: Path, control: Result
) -> None:
    """As on another node, whose lock the file system has lost: both train, the first manifest wins."""
    root, log = tmp_path / "store", Log(tmp_path / "log")
    with stopped_in_its_second_stage(root, log, tmp_path) as stopped:
        taken = trained(log, stopped)[1]
        (root / "stages" / taken / "claim").unlink()
        assert child(partial(drive, root, log), tmp_path).code == 0
        winner = StageStore(root).read(taken).attempt
    assert StageStore(root).read(taken).attempt == winner
    assert violations(root, log, control, faults=1) == []


def test_two_drivers_of_one_store_train_every_stage_once(tmp_path: Path, control: Result) -> None:
    root, log = tmp_path / "store", Log(tmp_path / "log")
    pair = [started(partial(drive, root, log), tmp_path / f"{number}.txt") for number in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pair] == [0, 0]
    begun = Counter(event["key"] for event in log.events("begin"))
    assert set(begun.values()) == {1} and len(begun) == STAGES
    assert violations(root, log, control, faults=0) == []


def test_worker_without_memory_ends_with_one_clear_line_and_the_next_goes_on(tmp_path: Path, control: Result) -> None:
    root, log = tmp_path / "store", Log(tmp_path / "log")

    def starved() -> None:
        """After two stages it wants more than any machine has."""

        def want(plan: object) -> None:
            if len(log.events("acknowledged")) == 2:
                torch.empty(1 << 50)

        problems = problems_of(build_plan(JOB).trials[0], partial(drive, root, log, after=want))
        raise TrialError(*problems)

    ended = child(starved, tmp_path)
    assert ended.code == 1, ended.said
    assert "error[RUN006] stepwise-seed0: the worker ran out of memory" in ended.said
    assert "Traceback" not in ended.said
    assert child(partial(drive, root, log), tmp_path).code == 0
    assert violations(root, log, control, faults=1) == []


def test_what_a_killed_command_left_for_ray_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    with ray_storage(tmp_path) as living:
        killed = tmp_path / "ray" / "state-killed"
        shutil.copytree(living, killed)
        killed.with_suffix(LIVING).touch()
        with ray_storage(tmp_path) as other:
            assert other != living and living.is_dir()
            assert not killed.exists() and not killed.with_suffix(LIVING).exists()
    assert not list((tmp_path / "ray").iterdir())
