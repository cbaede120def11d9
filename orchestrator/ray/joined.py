"""The Ray of a cluster, for a command that runs on one of its nodes: joined, used, left running."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import Resources, default_token_file
from orchestrator.errors import InputError, Problem, first_line
from orchestrator.ray.access import check_private, check_turns_strangers_away
from orchestrator.ray.local import DRIVER, DRIVER_ENVIRONMENT, WORKER_ENVIRONMENT
from orchestrator.ray.nodes import nodes_without
from orchestrator.ray.placement import Node, Placement, does_not_fit, fitting_trials

DRIVER_RETRIES = 3
_ALLOW = "say --allow-unauthenticated"
_OTHERWISE = (
    "start Ray on this machine, or `stepwise submit` from another one; without --address and RAY_ADDRESS the command "
    "starts a Ray of its own"
)
CONNECT_SECONDS = 5.0
_TRAIN = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
"""Settings for a cluster: one that lost a node, or is full of others' work, may take an hour to have room again; a spot
machine says half a minute before that it goes."""


@dataclass(frozen=True)
class Attachment:
    """A running Ray to work on: ``auto`` for the one on this node, or HOST:PORT of its GCS."""

    address: str
    allow_unauthenticated: bool = False


def check_address(at: Attachment) -> None:
    """Raise ``InputError`` if it can be told at once that nothing can be joined: RAY_ADDRESS may be a stray one."""
    if at.address != "auto":
        _check_listens(at.address)
    if not at.allow_unauthenticated:
        _check_token_file()


def _check_listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or {"@", "/"} & set(host):  # not shown: a URL may hold a password
        raise InputError(Problem("CLU017", "--address or RAY_ADDRESS", "is neither HOST:PORT nor auto", _OTHERWISE))
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        found = f"cannot be joined: {first_line(error)}"
        raise InputError(Problem("CLU003", address, found, _OTHERWISE)) from None


@contextmanager
def attached_ray(at: Attachment, resources: Resources, store: Path) -> Iterator[Placement]:
    """Join the running Ray for a block. Raises ``InputError`` if it is open to all, too small, or without the store."""
    connect(at)
    import ray

    try:
        if bad := nodes_without(store):
            fix = "name a folder that all nodes share, with working file locks, with --store"
            raise InputError(Problem("CLU010", str(store), f"node {'; '.join(bad)}", fix))
        yield placement(resources)
    finally:
        ray.shutdown()


def connect(at: Attachment) -> None:
    """Join the running Ray as a driver. Raises ``InputError``."""
    os.environ.update(DRIVER_ENVIRONMENT)
    if at.allow_unauthenticated:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    else:
        os.environ["RAY_AUTH_MODE"] = "token"
        _check_token_file()
    import ray
    import ray.exceptions

    try:
        ray.init(
            address=at.address,
            runtime_env={"env_vars": WORKER_ENVIRONMENT | _TRAIN},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        found = f"cannot be joined: {first_line(error)}"
        raise InputError(Problem("CLU003", at.address, found, _OTHERWISE)) from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not at.allow_unauthenticated:
        try:
            check_turns_strangers_away(ray.get_runtime_context().gcs_address, _ALLOW)
        except InputError:
            ray.shutdown()
            raise


def _check_token_file() -> None:
    """Check the file that Ray reads after RAY_AUTH_TOKEN. Raises ``InputError``."""
    if not os.environ.get("RAY_AUTH_TOKEN"):
        check_private(Path(default_token_file()).expanduser())


def placement(resources: Resources) -> Placement:
    """Return how trials go on the joined Ray. Raises ``InputError`` if none fits."""
    import ray

    from orchestrator.ray.private import most_resources

    return _placement(resources, ray.nodes(), most_resources())


def room_now(resources: Resources) -> int:
    """Return how many trials would find room at this moment on the joined Ray, beside other work there."""
    from orchestrator.ray.private import free_resources

    free = free_resources()
    return fitting_trials(resources, [Node(node.get("CPU", 0), node.get("GPU", 0)) for node in free])


def _placement(resources: Resources, nodes: list[dict[str, Any]], most: dict[str, int]) -> Placement:
    """Return as many trials as fit now, or once the cluster has grown as far as it may.

    A number in the job file counts as it is: a cluster may grow in ways that Ray does not know of.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    now = fitting_trials(resources, [Node(node.get("CPU", 0), node.get("GPU", 0)) for node in alive])
    grown = fitting_trials(resources, [Node(most.get("CPU", 0), most.get("GPU", 0))])
    fitting = max(now, grown)
    if not fitting:
        has = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in alive)
        raise does_not_fit(resources, f"the cluster's nodes have {has}")
    pinned = any(DRIVER in node for node in alive)
    return Placement(
        resources.max_concurrent_trials or fitting,
        {DRIVER: 1} if pinned else {"memory": 1},
        0 if pinned else DRIVER_RETRIES,
    )
