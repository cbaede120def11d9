"""The deterministic part of the fault harness, by its own command, and proof that its oracles see what they are for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.oracle import Result, leftovers, lost, redone, result, violations
from faults.walks import Armed, Log, child, drive

from orchestrator.store import StageStore


@pytest.mark.timeout(15 * 60)
def test_drivers_killed_at_every_place_lose_and_double_nothing() -> None:
    command = [sys.executable, Path(__file__).with_name("run.py"), "--short", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=14 * 60)
    figures = json.loads(finished.stdout)
    assert figures["failures"] == []
    assert finished.returncode == 0
    assert figures["delivered"] == figures["planned"] > 0
    assert figures["stages_lost"] == figures["leftovers"] == figures["redone_more_than_once_a_fault"] == 0
    assert figures["redo_factor"] <= 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished trial and its log."""
    folder = tmp_path_factory.mktemp("finished")
    drive(folder / "store", Log(folder / "log"))
    return folder


def broken(finished: Path, folder: Path) -> tuple[StageStore, Log, Result]:
    shutil.copytree(finished, folder / "copy")
    return StageStore(folder / "copy" / "store"), Log(folder / "copy" / "log"), result(finished / "store")


def test_oracle_sees_a_lost_stage_and_other_weights(finished: Path, tmp_path: Path) -> None:
    store, log, control = broken(finished, tmp_path)
    assert violations(store.root, log, control, 0) == []
    store.forget(store.stage_keys()[0])
    assert len(lost(store.root, log)) == 1
    assert any(line.startswith("differs") for line in violations(store.root, log, control, 0))


def test_oracle_sees_a_stage_that_was_done_twice(finished: Path, tmp_path: Path) -> None:
    store, log, _ = broken(finished, tmp_path)
    log.write("begin", key=store.stage_keys()[0], stage=0, step=0)
    assert list(redone(log, 1)) == [f"{store.stage_keys()[0]} begun after it was acknowledged"]


def test_oracle_sees_more_done_again_than_faults_explain(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    for key in ("first", "first", "second", "second"):
        log.write("begin", key=key, stage=0, step=0)
    assert not list(redone(log, 2))
    assert list(redone(log, 1)) == ["2 stages begun again after 1 faults"]


def test_oracle_sees_what_is_left_behind(finished: Path, tmp_path: Path) -> None:
    store, _, _ = broken(finished, tmp_path)
    store.begin(store.stage_keys()[0])
    (store.root / "jobs" / "x.host-1.partial").write_text("")
    held = store.claim(store.stage_keys()[1])
    assert len(leftovers(store.root)) == 3
    held.release()


def test_injector_tells_a_fault_that_did_not_happen(tmp_path: Path) -> None:
    ended = child(lambda: drive(tmp_path / "store", Log(tmp_path / "log"), Armed("nowhere", 0)), tmp_path)
    assert (ended.killed, ended.struck, ended.code) == (False, (), 0)
