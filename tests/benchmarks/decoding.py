"""Implicit against explicit decoding: the paper's claim of speed, beside the ratio of generated tokens.

Without a store: random weights that write as many tokens as the task's longest example has left, by the
product's own greedy loop. With ``--store`` and ``--job``: the last committed stages of explicit_cot and
stepwise, as trained, by the product's own measure. The paper reports 11x for GPT-2 Small on 9x9 (§4.3).

    stepwise run tests/benchmarks/decoding.toml 'methods=["stepwise"]' --store DIR
    python tests/benchmarks/decoding.py --store DIR --job tests/benchmarks/decoding.toml
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import Figure, Side, arguments, console, finish, interleaved, table
from ours import ALLOCATOR, CPU, Size

from orchestrator.config import load_job
from orchestrator.method.decoding import greedy
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.models.model import load_weights, set_attention
from orchestrator.method.removal import CutBatch, cut
from orchestrator.plan import Trial
from orchestrator.store import StageStore, plan_for
from orchestrator.trials.data import prepare_data

THREADS = 2
NEVER = -1
"""A separator that no model writes, so that lengths are forced."""


@dataclass(frozen=True)
class Case:
    """A size (its batch is the decoded one) and how often it is measured."""

    size: Size
    pairs: int
    repeats: int
    paper: float | None = None

    def __str__(self) -> str:
        return f"{self.size}, forced lengths"


def cases(*, quick: bool) -> list[Case]:
    """9x9 is GPT-2 Small's shape at the lengths of the paper's claim."""
    small = [Case(Size((3, 3), batch), 2 if quick else 9, 1 if quick else 4) for batch in (1, 64)]
    paper = Case(Size((9, 9), 1, gpt2=True, train_examples=8), 1 if quick else 3, 1, 11.0)
    return small if quick else [*small, paper]


@torch.inference_mode()
def forced(case: Case, folder: Path) -> tuple[tuple, Figure]:
    """A row of the table and its figure, on random weights."""
    data = case.size.data(folder)
    model = case.size.model(data).eval()
    set_attention(model, CPU, case.size.job.training)
    whole = data.validation.batch(np.arange(case.size.batch))
    batch = cut(whole, torch.zeros(case.size.batch, dtype=torch.long))
    prompt = int(data.validation.cot_start[0])
    explicit = data.longest - prompt
    implicit = explicit - data.total_tokens
    runs = interleaved(
        lambda: _seconds(model, batch, prompt, implicit, case.repeats),
        lambda: _seconds(model, batch, prompt, explicit, case.repeats),
        case.pairs,
    )
    speeds = [case.repeats * case.size.batch / float(np.median(side)) for side in zip(*runs, strict=True)]
    figure = Figure(str(case), tuple(long / short for short, long in runs), case.paper)
    return (str(case), *speeds, figure.value, explicit / implicit), figure


def _seconds(model: torch.nn.Module, batch: CutBatch, prompt: int, tokens: int, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        greedy(
            model, batch.tokens_BK[:, :prompt], batch.positions_BK[:, :prompt], NEVER, [tokens] * len(batch.tokens_BK)
        )
    return time.perf_counter() - began


def trained(job_file: Path, root: Path, repetitions: int) -> list[tuple[tuple, Figure]]:
    """The same on the last stages of a job's first explicit_cot and stepwise trials."""
    job, store = load_job(job_file), StageStore(root)
    plan, data = plan_for(job, store), prepare_data(job, store)
    evaluator = Evaluator(data.validation, data.tokenizer, data.task.is_correct, job.evaluation, token_is_symbol=True)
    ends = [_end(next(t for t in plan.trials if t.method == method), store) for method in ("stepwise", "explicit_cot")]
    results = []
    for size in (1, 64):
        one, other = (partial(evaluator.speed, *end, size, max(size, 16)) for end in ends)
        speeds = interleaved(one, other, repetitions)
        name = f"{job.name}, trained, batch {size}"
        figure = Figure(name, tuple(i.examples_per_second / e.examples_per_second for i, e in speeds))
        rates = [float(np.median([speed.examples_per_second for speed in side])) for side in zip(*speeds, strict=True)]
        tokens = speeds[0][1].generated_tokens / speeds[0][0].generated_tokens
        row = (name, *rates, figure.value, tokens)
        results.append((row, figure))
    return results


def _end(trial: Trial, store: StageStore) -> tuple[torch.nn.Module, Removed]:
    """The model of a trial's last committed stage, and what is removed there."""
    manifest = next(m for stage in reversed(trial.stages) if (m := store.manifest(stage)) and m.verdict == "good")
    found = manifest.metrics
    console.print(f"{trial.method}: {found.removed_tokens} removed, exact match {found.exact_match:.3f}")
    return load_weights(store.folder(manifest)), Removed(found.removed_tokens)


class Bench:
    """Everything in one process with the product's environment."""

    def __call__(self, quick: bool, job_file: Path | None, root: Path | None) -> list[Figure]:
        torch.set_num_threads(THREADS)
        with tempfile.TemporaryDirectory() as folder:
            results = [forced(case, Path(folder)) for case in cases(quick=quick)]
        if job_file and root:
            results = [*trained(job_file, root, 2 if quick else 7), *results]
        rows, figures = zip(*results, strict=True)
        columns = ("case", "implicit, examples/s", "explicit, examples/s", "ratio", "ratio of tokens")
        table(f"Greedy decoding, {THREADS} threads", columns, rows)
        return sorted(figures, key=lambda figure: figure.target is None)


def main() -> None:
    options = arguments(__doc__, store=(Path, "a store with trained stages"), job=(Path, "the job that trained them"))
    with Side(Bench, ALLOCATOR) as bench:
        figures = bench(options.quick, options.job, options.store)
    finish("decoding", *figures, quick=options.quick)


if __name__ == "__main__":
    main()
