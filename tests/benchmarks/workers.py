"""Two data-parallel workers with a thread each against one worker with a thread: the same steps, the same batch."""

from __future__ import annotations

import tempfile
import uuid
from functools import partial
from pathlib import Path

from bench import Figure, Side, arguments, finish, interleaved, table
from ours import ALLOCATOR, Ours, Size, ours_in_group

REMOVED, THREADS = 0, 1


def compared(size: Size, folder: Path, steps: int, pairs: int, target: float | None) -> tuple[tuple, Figure]:
    """A row of the table and the ratio of examples per second."""
    size.data(folder)  # made once, mapped by all three
    meet = folder / uuid.uuid4().hex  # a file that two runs share would join them
    workers = [partial(ours_in_group, size, folder, rank, 2, meet) for rank in range(2)]
    with (
        Side(partial(Ours, size, folder), ALLOCATOR) as alone,
        Side(workers[0], ALLOCATOR) as first,
        Side(workers[1], ALLOCATOR) as second,
    ):

        def both() -> float:
            for worker in (first, second):
                worker.start(REMOVED, steps, THREADS)
            return max(first.result(), second.result())

        runs = interleaved(both, lambda: alone(REMOVED, steps, THREADS), pairs)
    two, one = (sorted(side)[len(side) // 2] for side in zip(*runs, strict=True))
    figure = Figure(str(size), tuple(alone / both for both, alone in runs), target)
    return (str(size), steps * size.batch / two, steps * size.batch / one, figure.value), figure


def main() -> None:
    quick = arguments(__doc__).quick
    with tempfile.TemporaryDirectory() as folder:
        small = compared(Size((3, 3), 64), Path(folder), 10 if quick else 60, 2 if quick else 7, 1.7)
        results = [small]
        if not quick:
            results.append(compared(Size((4, 4), 64), Path(folder), 60, 5, None))
            results.append(compared(Size((4, 4), 32, gpt2=True), Path(folder), 2, 2, None))
    rows, figures = zip(*results, strict=True)
    table("Training on two workers", ("size", "two, examples/s", "one, examples/s", "ratio"), rows)
    finish("workers", *figures, quick=quick)


if __name__ == "__main__":
    main()
