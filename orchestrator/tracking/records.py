"""What stands in MLflow as a value: a run and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from orchestrator.results.frontier import FrontierPoint

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Value(NamedTuple):
    """One row of MLflow's metrics."""

    key: str
    value: float
    timestamp: int
    """Milliseconds: when the stage was committed."""
    step: int


@dataclass(frozen=True)
class RunRecord:
    """One MLflow run. ``uid`` finds it again: the same work is the same run."""

    uid: str
    name: str
    status: Status
    started: int
    ended: int
    params: dict[str, str]
    tags: dict[str, str]
    values: tuple[Value, ...]
    models: tuple[FrontierPoint, ...] = ()
    """The points whose weights a reader may want: one a removed count."""
    attempts: tuple[RunRecord, ...] = ()
    """Runs below it: what a trial tried in vain."""
