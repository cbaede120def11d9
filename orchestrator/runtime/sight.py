"""What the nodes of a joined cluster see: asked on every one of them, with a task that takes no core."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.partial import partial

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class NodeView:
    """A node's answer. ``skew``: seconds by which its clock is off for sure. ``free_bytes`` of the store's disk."""

    name: str
    sees_store: bool
    skew: float
    python: str
    free_bytes: int


def blind_nodes(store: Path) -> list[str]:
    """The nodes that do not see what this one writes into the store's folder."""
    return [view.name for view in node_views(store) if not view.sees_store]


def node_views(store: Path) -> list[NodeView]:
    """Every live node's view of the store and of itself; of one that does not answer, nothing."""
    marker = partial(store / "jobs" / f"seen-{uuid.uuid4().hex}")  # where a killed one's is swept up
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    try:
        return [_view(answer) for answer in on_every_node(_look, str(marker))]
    finally:
        marker.unlink()


def _view(answer: Answer) -> NodeView:
    sees_store, clock, python, free_bytes = answer.value
    return NodeView(answer.node, sees_store, certain_skew(clock, answer.asked, answer.answered), python, free_bytes)


def certain_skew(clock: float, asked: float, answered: float) -> float:
    """How far a clock is off, whenever between ``asked`` and ``answered`` it was read. All in seconds of the epoch."""
    return max(asked - clock, clock - answered, 0.0)


@dataclass(frozen=True)
class Answer:
    """What a node returned, and our clock when it was asked and when the answer came."""

    node: str
    value: Any
    asked: float
    answered: float


def on_every_node(look: Callable[..., Any], *arguments: Any) -> list[Answer]:
    """What a function returns on every live node; of one that does not answer in time, nothing."""
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
        answers += [Answer(waiting.pop(answer), ray.get(answer), asked, time.time()) for answer in ready]
    return answers


def _look(marker: str) -> tuple[bool, float, str, int]:
    import shutil

    path = Path(marker)
    seen = path.exists()
    version = ".".join(map(str, sys.version_info[:3]))
    return seen, time.time(), version, shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
