"""A training step of the product against one of the reference: same model, data, batch and removal point.

The reference is ``reference.py``. Both sides run in processes of their own, in turns. Then the product
alone at several removal points: as tokens vanish the step must get cheaper in proportion.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import Figure, Side, arguments, console, finish, interleaved, table
from ours import ALLOCATOR, SMOOTHING, Ours, Size
from reference import Reference

from orchestrator.tasks import make_task


@dataclass(frozen=True)
class Case:
    """What is compared: a size at a removal point, as a share of the CoT."""

    size: Size
    removed_share: float
    threads: int
    steps: int
    pairs: int
    target: float | None

    def __str__(self) -> str:
        return f"{self.size}, {self.removed_share:.0%} removed, {self.threads} thread{'s' * (self.threads > 1)}"


def cases(*, quick: bool) -> list[Case]:
    """The main comparison is at all cores, with the whole CoT."""
    small = [Size((3, 3), 64), Size((4, 4), 64)]
    gpt2 = Size((4, 4), 4 if quick else 32, gpt2=True)
    if quick:
        return [*(Case(size, 0, 2, 5, 2, 4) for size in small), Case(gpt2, 0, 2, 1, 1, 2)]
    points = [(0, 2, 4.0), (0.5, 2, None), (1, 2, None), (0, 1, None)]
    of_small = [Case(size, share, threads, 12, 7, target) for size in small for share, threads, target in points]
    return [*of_small, Case(gpt2, 0, 2, 1, 3, 2), Case(gpt2, 1, 2, 1, 3, None)]


class Both:
    """One side at all sizes; each is made when it is first asked for."""

    def __init__(self, kind: str, store: Path) -> None:
        self.kind, self.store, self.made = kind, store, {}

    def __call__(self, size: Size, removed_share: float, steps: int, threads: int) -> float:
        if size not in self.made:
            self.made = {size: Ours(size, self.store) if self.kind == "ours" else _reference(size, self.store)}
        side = self.made[size]
        removed = round(removed_share * size.data(self.store).total_tokens)
        if isinstance(side, Ours):
            return side(removed, steps, threads)
        torch.set_num_threads(threads)
        if removed != side.removed:
            side.set_removed(removed)
        return side.train(steps)


def _reference(size: Size, store: Path) -> Reference:
    data = size.data(store)
    examples = make_task(size.job.task).examples("train")
    rate = size.job.training.learning_rate
    return Reference(size.model(data), data.tokenizer, examples, size.batch, rate, SMOOTHING)


def compared(case: Case, ours: Side, reference: Side) -> tuple[tuple[object, ...], Figure]:
    """A row of the table, and the ratio of examples per second."""
    work = (case.size, case.removed_share, case.steps, case.threads)
    pairs = interleaved(lambda: ours(*work), lambda: reference(*work), case.pairs)
    examples = case.steps * case.size.batch
    own, theirs = (float(np.median([examples / seconds for seconds in side])) for side in zip(*pairs, strict=True))
    figure = Figure(str(case), tuple(other / own for own, other in pairs), case.target)
    return (str(case), own, theirs, figure.value), figure


def proportion(ours: Side, size: Size, steps: int, repetitions: int, lengths: tuple[int, int]) -> None:
    """Seconds per step against the tokens an example still has, and the line through them."""
    total, longest = lengths
    shares = np.linspace(0, 1, 5)
    tokens = [longest - round(share * total) for share in shares]
    ours(size, 0.0, steps, 2)
    runs = [[ours(size, float(share), steps, 2) / steps for share in shares] for _ in range(repetitions)]
    seconds = np.median(runs, axis=0)
    slope, intercept = np.polyfit(tokens, seconds, 1)
    explained = np.corrcoef(tokens, seconds)[0, 1] ** 2
    rows = [(n, f"{s * 1e3:.1f}", f"{(slope * n + intercept) * 1e3:.1f}") for n, s in zip(tokens, seconds, strict=True)]
    table(f"Step of the product, {size}, 2 threads", ("tokens per example", "ms", "line, ms"), rows)
    console.print(
        f"line: {slope * 1e3:.3f} ms a token + {intercept * 1e3:.1f} ms "
        f"({intercept / seconds[0]:.0%} of the full step); R² {explained:.3f}"
    )


def main() -> None:
    quick = arguments(__doc__).quick
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        lengths = {case.size: _lengths(case.size, store) for case in cases(quick=quick)}
        with (
            Side(partial(Both, "ours", store), ALLOCATOR) as ours,
            Side(partial(Both, "reference", store)) as reference,
        ):
            for case in cases(quick=quick):
                row, figure = compared(case, ours, reference)
                rows.append(row)
                figures.append(figure)
            table("Training step", ("case", "ours, examples/s", "reference, examples/s", "ratio"), rows)
            for size, found in lengths.items():
                if not (quick and size.gpt2):
                    steps = 1 if size.gpt2 else 5 if quick else 12
                    proportion(ours, size, steps, 1 if quick or size.gpt2 else 5, found)
    finish("step", *figures, quick=quick)


def _lengths(size: Size, store: Path) -> tuple[int, int]:
    """CoT tokens and all tokens of an example."""
    data = size.data(store)
    return data.total_tokens, data.longest


if __name__ == "__main__":
    main()
