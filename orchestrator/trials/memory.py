"""Says when a worker wants more memory than there is. It would want it again, so one that is alone says so at once.

Where there are several, Ray ends them all and tries twice more before it says the same (``ray/train.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orchestrator.errors import Problem, TrialError

_FIX = (
    "find it more memory or, without icot_kd, set resources.micro_batch or resources.gradient_checkpointing "
    "(the same steps in less memory), then run again"
)


@contextmanager
def enough_memory(trial: str) -> Iterator[None]:
    """Raise ``TrialError`` instead of what Python and torch say on a CPU or a GPU without memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch raises a plain RuntimeError when its allocator for the CPU fails
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not memory:
            raise
        said = (str(error) or "Python has no more").splitlines()[0]
        raise TrialError(Problem("RUN006", trial, f"the worker ran out of memory: {said}", _FIX)) from error
