"""Tasks: where problems come from."""

from __future__ import annotations

from orchestrator.config import MultiplicationTask
from orchestrator.tasks.base import Example, Split, Task


def make_task(config: MultiplicationTask) -> Task:
    """The task that a job's ``[task]`` table describes."""
    from orchestrator.tasks.multiplication import Multiplication

    return Multiplication(config)


__all__ = ["Example", "Split", "Task", "make_task"]
