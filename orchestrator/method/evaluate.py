"""Exact match by greedy decoding, and its speed.

A greedy decode equals its target if and only if the teacher-forced arg-max equals the target at
every position: both condition on the same tokens up to the first difference. So one forward pass
settles every example that is right as a whole. Where a token is a symbol it also settles those
that first differ inside the answer: the same CoT, another answer. Only the others are decoded;
they may still reach the right answer through another CoT. The pass has seen all that they write
before they leave the target, so decoding goes on from there. The decisions are those of plain
greedy decoding.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from orchestrator.config import Evaluation
from orchestrator.method.decoding import Writing, beginnings, greedy, whole_cache, write_on
from orchestrator.method.encoding import ANSWER_MARK, extract_answer, written_mark, written_text
from orchestrator.method.models.hub import positions_of
from orchestrator.method.removal import IGNORED, CutBatch, cut
from orchestrator.method.tokens import TokenTable

SPEED_REPETITIONS = 3
OVERTIME = 16
"""Tokens a generation may write beyond the longest target before it is cut off."""


@dataclass(frozen=True)
class Removed:
    """The cut that every evaluated example gets; no smoothing offset."""

    tokens: int
    side: str = "left"
    keep_position: bool = False


@dataclass(frozen=True)
class Accuracy:
    """``right``: of each example. ``loss``: mean negative log-likelihood per token of all that is left to write,
    teacher-forced.
    """

    right: tuple[bool, ...]
    loss: float

    @property
    def exact_match(self) -> float:
        return sum(self.right) / len(self.right)

    @property
    def examples(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class SpotCheck:
    """The answer alone, teacher-forced after its true CoT. ``loss``: per answer token."""

    loss: float
    exact_match: float


@dataclass(frozen=True)
class Speed:
    """Greedy decoding, tokenizing excluded."""

    examples_per_second: float
    generated_tokens: float
    """Mean tokens written per example, separators included."""


class Evaluator:
    """Measures a model on the validation examples of a job."""

    def __init__(
        self,
        table: TokenTable,
        tokenizer: PreTrainedTokenizerBase,
        is_correct: Callable[[str, str], bool],
        config: Evaluation,
        *,
        token_is_symbol: bool,
    ) -> None:
        self.table, self.tokenizer, self.is_correct, self.config = table, tokenizer, is_correct, config
        self.token_is_symbol = token_is_symbol
        self.size = config.examples or len(table)
        self.mark_tokens, self.mark = mark_tokens(table, tokenizer), written_mark(tokenizer)

    @torch.inference_mode()
    def accuracy(
        self, model: PreTrainedModel, removed: Removed, limit: int | None = None, *, verify: bool = True
    ) -> Accuracy:
        """Exact match over the first ``limit`` examples (default: all).

        ``verify=False`` decodes every example; same result, slower.
        """
        size = min(limit or self.size, self.size)
        right, loss, tokens = np.zeros(size, bool), 0.0, 0
        with _evaluating(model):
            for rows in np.array_split(np.arange(size), -(-size // self.config.batch_size)):
                judged = self._judged(model, rows, removed, verify)
                right[rows], loss, tokens = judged.right, loss + judged.loss, tokens + judged.tokens
        return Accuracy(tuple(right.tolist()), loss / tokens)

    def _judged(self, model: PreTrainedModel, rows: NDArray[np.int64], removed: Removed, verify: bool) -> _Judged:
        forced = _teacher_forced(model, self._cut(rows, removed, model.device), whole_cache(model))
        settled = verify & self._settled(forced).cpu().numpy()
        right = settled & forced.right_BK.all(1).cpu().numpy()
        left = np.flatnonzero(~settled)
        if verify and forced.cache is not None:
            outputs = self._resumed(model, rows, removed, forced, left)
        else:
            outputs = [output for _, output in sorted(self._decoded(model, rows[left], removed))]
        right[left] = [self._is_right(output, row) for row, output in zip(rows[left], outputs, strict=True)]
        return _Judged(right, forced.loss, forced.tokens)

    @torch.inference_mode()
    def spot_check(self, model: PreTrainedModel, removed: Removed, examples: int) -> SpotCheck:
        """One forward pass over the first examples. Draws no random number, so training is the same without it."""
        rows = np.arange(min(examples, self.size))
        batch = self._cut(rows, removed, model.device)
        answers = answer_tokens(self.table, self.mark_tokens)[rows]
        from_end_BK = batch.lengths_B.cpu()[:, None] - torch.arange(batch.tokens_BK.shape[1])
        in_answer_BK = (from_end_BK > 1) & (from_end_BK <= 1 + torch.from_numpy(answers)[:, None])
        labels_BK = torch.where(in_answer_BK.to(model.device), batch.tokens_BK, IGNORED)
        with _evaluating(model):
            forced = _teacher_forced(model, replace(batch, labels_BK=labels_BK))
        return SpotCheck(forced.loss / forced.tokens, int(forced.right_BK.all(1).sum()) / len(rows))

    @torch.inference_mode()
    def speed(self, model: PreTrainedModel, removed: Removed, batch_size: int, examples: int) -> Speed:
        """Each batch counts with the fastest of a few repetitions: the least disturbed one.

        On a CPU seconds are of the clock or, if that is less, of the process's own time: what shares the cores with one
        thread does not count, and of several threads no more is taken to be at work than were.
        """
        rows = np.arange(examples) % self.size
        seconds, written = 0.0, 0
        with _evaluating(model):
            for begin in range(0, examples, batch_size):
                batch = rows[begin : begin + batch_size]
                seconds += min(self._seconds(model, batch, removed) for _ in range(SPEED_REPETITIONS))
                written += sum(len(output) for _, output in self._decoded(model, batch, removed))
        return Speed(examples / seconds, written / examples)

    def _seconds(self, model: PreTrainedModel, rows: NDArray[np.int64], removed: Removed) -> float:
        began, worked = time.perf_counter(), time.process_time()
        list(self._decoded(model, rows, removed))
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
            return time.perf_counter() - began
        return min(time.perf_counter() - began, time.process_time() - worked)

    def _settled(self, forced: _Forced) -> Tensor:
        """Per example, whether the forward pass alone says if its answer is right."""
        whole = forced.right_BK.all(1)
        if not self.token_is_symbol:
            return whole
        mark = self.tokenizer.convert_tokens_to_ids(ANSWER_MARK)
        mark_at_B = (forced.batch.tokens_BK == mark).int().argmax(1)
        return whole | (forced.first_wrong_B > mark_at_B)

    def _cut(self, rows: NDArray[np.int64], removed: Removed, device: torch.device) -> CutBatch:
        batch = self.table.batch(rows)
        return cut(
            batch.to(device),
            torch.full((len(rows),), removed.tokens, device=device),
            removed.side,
            removed.keep_position,
        )

    def _decoded(
        self, model: PreTrainedModel, rows: NDArray[np.int64], removed: Removed
    ) -> Iterator[tuple[int, list[int]]]:
        """Each row's newly written tokens, up to and with its second separator.

        Prompts of one length are decoded together, so no padding can change a result.
        """
        by_length = defaultdict(list)
        for row in rows:
            by_length[int(self.table.cot_start[row])].append(int(row))
        for length, group in by_length.items():
            batch = self._cut(np.array(group), removed, model.device)
            prompts = batch.tokens_BK[:, :length], batch.positions_BK[:, :length]
            limits = self._limits(model, np.array(group), batch, removed).tolist()
            yield from zip(group, greedy(model, *prompts, self.tokenizer.eos_token_id, limits), strict=True)

    def _resumed(
        self,
        model: PreTrainedModel,
        rows: NDArray[np.int64],
        removed: Removed,
        forced: _Forced,
        left: NDArray[np.int64],
    ) -> list[list[int]]:
        """Return what the rows ``left`` write. Tokens that the forward pass has seen are not decoded again."""
        if not len(left):
            return []
        batch, left_B = forced.batch, torch.from_numpy(left).to(model.device)
        wrong_B = forced.first_wrong_B[left_B]
        cache, seen_BS = beginnings(forced.cache, left_B, wrong_B)
        next_B = forced.argmax_BK[left_B, wrong_B - forced.first]
        writing = Writing(cache, seen_BS, next_B, batch.positions_BK[left_B, wrong_B])
        spans = zip(left, self.table.cot_start[rows[left]], wrong_B.tolist(), strict=True)
        before = [batch.tokens_BK[row, start:wrong].tolist() for row, start, wrong in spans]
        limits = self._limits(model, rows, batch, removed)[left].tolist()
        return write_on(model, writing, self.tokenizer.eos_token_id, before, limits)

    def _limits(
        self, model: PreTrainedModel, rows: NDArray[np.int64], batch: CutBatch, removed: Removed
    ) -> NDArray[np.int64]:
        """Tokens that may be written for each row."""
        last_B = torch.from_numpy(self.table.cot_start[rows] - 1).long()
        positions = batch.positions_BK.cpu().gather(1, last_B[:, None])[:, 0].numpy()
        return np.minimum(self._longest_target(removed) + OVERTIME, positions_of(model.config) - 1 - positions)

    def _longest_target(self, removed: Removed) -> int:
        """Tokens that the longest example has left to write."""
        table, n = self.table, self.size
        cut = np.minimum(table.cot_end[:n] - table.cot_start[:n], removed.tokens)
        return int((np.diff(table.offsets[: n + 1]) - table.cot_start[:n] - cut).max())

    def _is_right(self, output: list[int], row: int) -> bool:
        written = written_text(output, self.tokenizer)
        return self.is_correct(extract_answer(written, self.mark), self.table.answers[row])


def mark_tokens(table: TokenTable, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of ``####`` after the second separator: what all examples begin their last part with."""
    end = tokenizer.eos_token
    alone = tokenizer(f" {end} {ANSWER_MARK} {end}", add_special_tokens=False)["input_ids"]
    alone = alone[alone.index(tokenizer.eos_token_id) + 1 :]
    example = table.tokens[table.cot_end[0] + 1 : table.offsets[1]]
    return next(i for i, (a, b) in enumerate(zip(alone, example, strict=False)) if a != b)


def answer_tokens(table: TokenTable, mark: int) -> NDArray[np.int64]:
    """Tokens of every example's answer: between ``####`` and the last separator."""
    return np.diff(table.offsets) - table.cot_end - 2 - mark


def answer_entropy(table: TokenTable, mark: int) -> float:
    """Unigram entropy of the answer tokens, in nats: the loss of a model that knows their frequencies alone."""
    answers = answer_tokens(table, mark)
    ends = table.offsets[1:] - 1
    first = np.repeat(ends - answers, answers)
    within = np.arange(answers.sum()) - np.repeat(np.cumsum(answers) - answers, answers)
    _, counts = np.unique(table.tokens[first + within], return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@dataclass(frozen=True)
class _Judged:
    """The share of a batch in an ``Accuracy``."""

    right: NDArray[np.bool_]
    loss: float
    tokens: int


@dataclass(frozen=True)
class _Forced:
    """A teacher-forced pass."""

    batch: CutBatch
    cache: DynamicCache | None
    loss: float
    tokens: int
    first: int
    """The position of the first token that any example has to write; what follows begins there."""
    argmax_BK: Tensor
    right_BK: Tensor
    """Where the arg-max is the target. Padding counts as right."""

    @property
    def first_wrong_B(self) -> Tensor:
        """The position of the first token that is not the target's, of examples that have one."""
        return self.first + (~self.right_BK).int().argmax(1)


def _teacher_forced(model: PreTrainedModel, batch: CutBatch, cache: DynamicCache | None = None) -> _Forced:
    first = int((batch.labels_BK != IGNORED).int().argmax(1).min())
    labels = batch.labels_BK[:, first:]
    logits = model(
        input_ids=batch.tokens_BK[:, :-1],
        attention_mask=batch.attention_mask[:, :-1],
        position_ids=batch.positions_BK[:, :-1],
        logits_to_keep=labels.shape[1],
        past_key_values=cache,
        use_cache=cache is not None,
    ).logits.float()
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    ignored, argmax = labels == IGNORED, logits.argmax(-1)
    return _Forced(batch, cache, float(loss), int((~ignored).sum()), first, argmax, (argmax == labels) | ignored)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode inside the block; the mode before it afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
