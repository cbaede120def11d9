"""Places the trials of a job on a Ray: what a machine has, how many fit, and the refusal of one that never will."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Resources
from orchestrator.errors import InputError, Problem


@dataclass(frozen=True)
class Node:
    """The CPUs and GPUs that a machine has for training."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Placement:
    """The way the trials of a job go on the Ray at hand."""

    concurrent: int
    """The number of trials at a time."""
    driver: dict[str, float]
    """The resources that Ray sets aside for a trial's driver function: never a core."""
    driver_retries: int = 0
    """The times that a driver may be lost with its node."""


def concurrent_trials(resources: Resources) -> int:
    """Return how many trials fit on this machine at a time. Raises ``InputError`` if not even one does."""
    fitting = fitting_trials(resources, [Node(cores(), gpus())])
    if not fitting:
        raise does_not_fit(resources, f"this machine has {cores()} and {gpus()}")
    return min(fitting, resources.max_concurrent_trials or fitting)


def fitting_trials(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials fit on these nodes at a time. A worker lies on one node, a trial may lie on several."""
    workers = 0
    for node in nodes:
        fitting = int(node.cpus / resources.cpus_per_worker)
        if resources.gpus_per_worker:  # a worker lies on one GPU, so a remainder of each is lost
            fitting = min(fitting, int(node.gpus) * int(1 / resources.gpus_per_worker))
        workers += fitting
    return workers // resources.workers


def does_not_fit(resources: Resources, there_is: str) -> InputError:
    """Return the refusal of a trial that could never start."""
    cpus, gpus = resources.workers * resources.cpus_per_worker, resources.workers * resources.gpus_per_worker
    found = f"a trial takes {cpus:g} CPUs and {gpus:g} GPUs, {there_is}"
    return InputError(Problem("CLU009", "resources", found, "lower workers, cpus_per_worker or gpus_per_worker"))


def cores() -> int:
    """Return the cores this process may use: by affinity, and by a container's quota."""
    allowed = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, period = (quota.read_text() if quota.exists() else "max 1").split()
    return allowed if limit == "max" else max(1, min(allowed, int(limit) // int(period)))


def gpus() -> int:
    """Return the GPUs this process may use: those of the machine, or those that CUDA_VISIBLE_DEVICES names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
