"""Asks every node of a joined cluster what it sees, with a task that takes no core."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import first_line
from orchestrator.ray.local import ray_storage
from orchestrator.store.claims import claim, held

TIMEOUT_SECONDS = 60
LOCK = "lock"
"""The name of the file in the folder that the nodes look at."""


@dataclass(frozen=True)
class NodeView:
    """A node's answer, or the problem alone if it gave none."""

    name: str
    problem: str
    """The reason why it cannot work in the store; empty if it can."""
    skew: float = 0.0
    """The seconds by which its clock is off at least."""
    python: str = ""
    """The version of its Python."""
    free_bytes: int = 0
    """The free bytes of the store's disk."""

    @property
    def answered(self) -> bool:
        """Return whether the node gave an answer."""
        return bool(self.python)


def nodes_without(store: Path) -> list[str]:
    """Return the nodes that cannot work in the store, each with its problem."""
    return [f"{view.name}: {view.problem}" for view in node_views(store) if view.problem]


def node_views(store: Path) -> list[NodeView]:
    """Return every live node's view of the store and of itself."""
    with ray_storage(store, "seen") as folder:
        lock = claim(folder / LOCK)
        try:
            return [_view(answer) for answer in on_every_node(_look, str(folder))]
        finally:
            if lock:
                lock.release()


def _view(answer: NodeAnswer) -> NodeView:
    if answer.error:
        return NodeView(answer.node, f"did not answer: {answer.error}")
    problem, clock, python, free_bytes = answer.value
    return NodeView(answer.node, problem, certain_skew(clock, answer.asked, answer.answered), python, free_bytes)


def certain_skew(clock: float, asked: float, answered: float) -> float:
    """Return the seconds by which a clock is off at least, whenever between ``asked`` and ``answered`` it was read.

    All three are in seconds since the epoch.
    """
    return max(asked - clock, clock - answered, 0.0)


@dataclass(frozen=True)
class NodeAnswer:
    """A node's return value, or the reason why there is none."""

    node: str
    value: Any
    asked: float
    """The time here when it was asked, in seconds since the epoch."""
    answered: float
    """The time here when the answer came, in seconds since the epoch."""
    error: str = ""


def on_every_node(look: Callable[..., Any], *arguments: Any) -> list[NodeAnswer]:
    """Return the answer of every live node to a function."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = time.time()
    waiting = {
        ray.remote(look)
        .options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote(*arguments): node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"]
    }
    answers = []
    while waiting and (left := asked + TIMEOUT_SECONDS - time.time()) > 0:
        ready, _ = ray.wait(list(waiting), timeout=left)
        answers += [_answer(waiting.pop(task), task, asked) for task in ready]
    late = f"nothing within {TIMEOUT_SECONDS} s"
    return answers + [NodeAnswer(node, None, asked, time.time(), late) for node in waiting.values()]


def _answer(node: str, task: Any, asked: float) -> NodeAnswer:
    """Return the answer of a finished task."""
    import ray
    import ray.exceptions

    try:
        return NodeAnswer(node, ray.get(task), asked, time.time())
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]  # Ray gives the whole traceback of the node
        return NodeAnswer(node, None, asked, time.time(), said)


def _look(folder: str) -> tuple[str, float, str, int]:
    """Return, on a node: its problem, its clock in seconds since the epoch, its Python, the free bytes of the disk."""
    problem = trouble(Path(folder))
    version = ".".join(map(str, sys.version_info[:3]))
    return problem, time.time(), version, 0 if problem else shutil.disk_usage(folder).free


def trouble(folder: Path) -> str:
    """Return why this node cannot work in a store that holds this folder, whose lock another node has taken."""
    if not folder.is_dir():
        return "does not see what this node writes"
    try:
        if not held(folder / LOCK):
            return "does not see that this node has locked a file"
        own = folder / uuid.uuid4().hex
        own.touch()
        own.unlink()
    except OSError as error:
        return f"cannot write there: {first_line(error)}"
    return ""
