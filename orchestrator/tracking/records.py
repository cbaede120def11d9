"""A run of MLflow and its metrics, as values."""

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
    """The moment of the stage's commit, in milliseconds since the epoch."""
    step: int


@dataclass(frozen=True)
class RunRecord:
    """One MLflow run."""

    uid: str
    """A hash by which the run is found again: the same work is the same run."""
    name: str
    status: Status
    started: int
    """A moment in milliseconds since the epoch, as ``ended`` is."""
    ended: int
    params: dict[str, str]
    tags: dict[str, str]
    values: tuple[Value, ...]
    models: tuple[FrontierPoint, ...] = ()
    """The points whose weights a reader may want, one for every number of removed tokens."""
    attempts: tuple[RunRecord, ...] = ()
    """The runs below it: a trial's failed attempts."""
