"""What the nodes of a joined cluster see: asked on every one of them, with a task that takes no core."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class NodeView:
    """A node's answer. ``clock``: its seconds since the epoch. ``free_bytes`` of the store's disk."""

    name: str
    sees_store: bool
    clock: float
    python: str
    free_bytes: int


def blind_nodes(store: Path) -> list[str]:
    """The nodes that do not see what this one writes into the store's folder."""
    return [view.name for view in node_views(store) if not view.sees_store]


def node_views(store: Path) -> list[NodeView]:
    """Every live node's view of the store and of itself; of one that does not answer, nothing."""
    store.mkdir(parents=True, exist_ok=True)
    marker = store / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        return [NodeView(*answer) for answer in on_every_node(_look, str(marker))]
    finally:
        marker.unlink()


def on_every_node(look: Callable[..., tuple[Any, ...]], *arguments: Any) -> list[tuple[Any, ...]]:
    """What a function returns on every live node, after the node's name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        ray.remote(look)
        .options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote(*arguments): node["NodeManagerAddress"]
        for node in alive
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_SECONDS)
    return [(asked[answer], *ray.get(answer)) for answer in answered]


def _look(marker: str) -> tuple[bool, float, str, int]:
    import shutil

    path = Path(marker)
    seen = path.exists()
    version = ".".join(map(str, sys.version_info[:3]))
    return seen, time.time(), version, shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
