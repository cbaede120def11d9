"""Tasks: where problems come from."""

from __future__ import annotations

from orchestrator.config import MultiplicationTask
from orchestrator.config import Task as TaskConfig
from orchestrator.tasks.base import Example, Split, Task


def make_task(config: TaskConfig) -> Task:
    """The task that a job's ``[task]`` table describes."""
    if isinstance(config, MultiplicationTask):
        from orchestrator.tasks.multiplication import Multiplication

        return Multiplication(config)
    from orchestrator.tasks.text import TextExamples

    return TextExamples(config)


__all__ = ["Example", "Split", "Task", "make_task"]
