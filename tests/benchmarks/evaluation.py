"""The product's exact match (verify, then decode what failed) against plain greedy ``generate``: equal decisions.

The product's pass also gives the validation loss; "with the loss" is against ``generate`` and a pass for that.

Problems have 3x3's lengths and all the same CoT and answer, which a model learns in seconds. It is right
on none or half of them where all, or every second, begin the CoT and the answer with another digit: it
then fails in the CoT first and must be decoded. Both sides judge the same problems in the same batch with
the same model.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench import Figure, Side, arguments, finish, interleaved, table
from ours import ALLOCATOR, CPU
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from orchestrator.config import Evaluation, Job, MultiplicationTask, ScratchModel, Training
from orchestrator.method.encoding import extract_answer
from orchestrator.method.evaluate import OVERTIME, Evaluator, Removed
from orchestrator.method.models.model import initial_model, set_attention
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.stage import StageSpec
from orchestrator.method.tokens import TokenTable
from orchestrator.method.train import StageRun, train_stage
from orchestrator.store import StageStore
from orchestrator.trials.data import JobData, prepare_data

EXAMPLES = 250
THREADS = 2
CHUNK, MOST_STEPS = 10, 400
LEAST = {(1.0, 1.0): 5.0, (0.0, 0.0): 1 / 1.1, (0.0, 0.5): 1 / 1.1, (0.0, 1.0): 1 / 1.1}
"""(accuracy, removed share) -> least ratio."""

JOB = Job(
    name="benchmark",
    task=MultiplicationTask(digits=(3, 3), train_examples=EXAMPLES),
    model=ScratchModel(layers=2, width=128, heads=4),
    training=Training(batch_size=50, learning_rate=2e-3),
    evaluation=Evaluation(batch_size=EXAMPLES),
)


class Bench:
    """Everything in one process with the product's environment."""

    def __call__(self, quick: bool) -> list[Figure]:
        torch.set_num_threads(THREADS)
        with tempfile.TemporaryDirectory() as folder:
            data = prepare_data(JOB, StageStore(Path(folder)))
        one_answer = alike(data.train, next(iter(data.task.examples("train"))).answer)
        none, half = (different(one_answer, data.tokenizer, every) for every in (1, 2))
        rows, figures = [], []
        for share in (0.0, 1.0) if quick else (0.0, 0.5, 1.0):
            removed = Removed(round(share * data.total_tokens))
            model = initial_model(JOB.model, data.tokenizer, data.longest, seed=0)
            set_attention(model, CPU, JOB.training)
            train(model, one_answer, removed, evaluator(one_answer, data))
            for wanted, examples in ((0.0, none), (0.5, half), (1.0, one_answer)):
                row, found = compared(model, evaluator(examples, data), removed, wanted, share, 1 if quick else 7)
                rows.append(row)
                figures += found
        columns = (
            "removed",
            "exact match",
            "verify then decode, ms",
            "generate, ms",
            "ratio",
            "loss, ms",
            "with the loss",
        )
        table(f"Exact match of {EXAMPLES} examples, {THREADS} threads", columns, rows)
        return figures[::-1]  # the headline is the whole CoT removed, all right, the exact match alone


def evaluator(examples: TokenTable, data: JobData) -> Evaluator:
    return Evaluator(examples, data.tokenizer, data.task.is_correct, JOB.evaluation, token_is_symbol=True)


def alike(examples: TokenTable, answer: str) -> TokenTable:
    """The same questions, all with the CoT and the answer of the first."""
    tokens = examples.tokens.reshape(EXAMPLES, -1).copy()
    tokens[:, examples.cot_start[0] :] = tokens[0, examples.cot_start[0] :]
    return replace(examples, tokens=tokens.reshape(-1), answers=[answer] * EXAMPLES)


def different(examples: TokenTable, tokenizer: PreTrainedTokenizerBase, every: int) -> TokenTable:
    """Every such problem with another digit at the beginning of its CoT, of that's second half, of its answer."""
    first = examples.answers[0][0]
    other = str((int(first) + 1) % 10)
    tokens = examples.tokens.reshape(EXAMPLES, -1).copy()
    start, end = int(examples.cot_start[0]), int(examples.cot_end[0])
    begins = [start, (start + end) // 2, end + 2]  # of the CoT, of its second half, of the answer
    tokens[::every, begins] = tokenizer.convert_tokens_to_ids(other)
    answers = [other + a[1:] if row % every == 0 else a for row, a in enumerate(examples.answers)]
    return replace(examples, tokens=tokens.reshape(-1), answers=answers)


def train(model: PreTrainedModel, examples: TokenTable, removed: Removed, judge: Evaluator) -> None:
    """Until all of them are right."""
    optimizer = Optimizer(model, JOB.training)
    for step in range(0, MOST_STEPS, CHUNK):
        spec = StageSpec(0, step, CHUNK, removed.tokens, (), examples.total_tokens)
        train_stage(StageRun(model, optimizer, spec, examples, JOB.training, None))
        if judge.accuracy(model, removed).exact_match == 1.0:
            return
    raise RuntimeError(f"not learnt in {MOST_STEPS} steps")


def compared(
    model: PreTrainedModel, judge: Evaluator, removed: Removed, wanted: float, share: float, pairs: int
) -> tuple[tuple[object, ...], tuple[Figure, Figure]]:
    """A row of the table and its figures; both sides must find the same answers right."""
    found = judge.accuracy(model, removed)
    assert found.right == plain(model, judge, removed)

    def theirs() -> tuple[float, float]:
        return (
            _seconds(lambda: plain(model, judge, removed)),
            _seconds(lambda: judge.spot_check(model, removed, EXAMPLES)),
        )

    runs = interleaved(lambda: _seconds(lambda: judge.accuracy(model, removed)), theirs, pairs)
    ms = [1e3 * float(np.median(side)) for side in zip(*((own, *both) for own, both in runs), strict=True)]
    name = f"exact match {wanted:g}, {share:.0%} removed"
    alone = Figure(name, tuple(decoding / own for own, (decoding, _) in runs), LEAST.get((wanted, share)))
    beside = Figure(f"{name}, with the loss", tuple(sum(both) / own for own, both in runs))
    row = (f"{removed.tokens}", f"{found.exact_match:.2f}", *ms[:2], alone.value, ms[2], beside.value)
    return row, (beside, alone)


@torch.inference_mode()
def plain(model: PreTrainedModel, judge: Evaluator, removed: Removed) -> tuple[bool, ...]:
    """Which answers are right by ``generate``: greedy, batched, until every row has written its second separator."""
    model.eval()
    right = []
    for rows in np.array_split(np.arange(EXAMPLES), -(-EXAMPLES // judge.config.batch_size)):
        for row, written in zip(rows, _generated(model, judge, rows, removed), strict=True):
            text = judge.tokenizer.decode(written)
            right.append(judge.is_correct(extract_answer(text), extract_answer(judge.table.answers[row])))
    return tuple(right)


def _generated(model: PreTrainedModel, judge: Evaluator, rows: np.ndarray, removed: Removed) -> list[list[int]]:
    end, examples = judge.tokenizer.eos_token_id, judge.table
    prompt = int(examples.cot_start[rows[0]])  # the same for all examples of a task
    tokens = model.generate(
        examples.batch(rows).tokens_BL[:, :prompt],
        attention_mask=torch.ones(len(rows), prompt, dtype=torch.long),
        do_sample=False,
        max_new_tokens=_left(examples, removed) + OVERTIME,
        eos_token_id=-1,  # its own stop would be the first separator
        pad_token_id=end,
        stopping_criteria=StoppingCriteriaList([SecondSeparator(prompt, end)]),
    )
    return [_before_second(row, end) for row in tokens[:, prompt:].tolist()]


class SecondSeparator(StoppingCriteria):
    """Rows that have written two separators are done."""

    def __init__(self, prompt: int, separator: int) -> None:
        self.prompt, self.separator = prompt, separator

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return (input_ids[:, self.prompt :] == self.separator).sum(1) >= 2


def _left(examples: TokenTable, removed: Removed) -> int:
    return examples.longest - int(examples.cot_start[0]) - min(removed.tokens, examples.total_tokens)


def _before_second(row: list[int], separator: int) -> list[int]:
    """The tokens before the second separator, without the first."""
    ends = [i for i, token in enumerate(row) if token == separator]
    return [token for token in row[: ends[1] if len(ends) > 1 else None] if token != separator]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    quick = arguments(__doc__).quick
    with Side(Bench, ALLOCATOR | {"TRANSFORMERS_VERBOSITY": "error"}) as bench:
        figures = bench(quick)
    finish("evaluation", *figures, quick=quick)


if __name__ == "__main__":
    main()
