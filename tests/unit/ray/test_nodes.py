"""What a node's answer says of its clock and of the store."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.ray.nodes import LOCK, certain_skew, trouble
from orchestrator.store import sweep
from orchestrator.store.claims import claim


@pytest.mark.parametrize(("clock", "skew"), [(100, 0), (130, 0), (160, 0), (90, 10), (167, 7)])
def test_clock_is_off_only_if_it_lies_outside_the_time_of_asking(clock, skew):
    assert certain_skew(clock, asked=100, answered=160) == skew


def test_node_can_work_in_a_store_that_it_sees_locked_and_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "does not see what this node writes" in trouble(tmp_path / "elsewhere")
    lock = claim(tmp_path / LOCK)
    assert trouble(tmp_path) == ""
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refused)
    assert "cannot write there: [Errno 13] Permission denied" in trouble(tmp_path)
    lock.release()
    assert "locked" in trouble(tmp_path)


def test_only_what_killed_commands_of_this_machine_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``node-2`` begins as ``node`` does, and its processes are not in our ``/proc``."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node")
    (tmp_path / "jobs").mkdir()
    for name in ("killed", "other"):
        host = {"killed": "node", "other": "node-2"}[name]
        (tmp_path / f"jobs/{name}.{host}-999999999.partial").touch()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.glob("*/*")] == ["other.node-2-999999999.partial"]
