"""Exact match by greedy decoding, and its speed.

A greedy decode equals its target if and only if the teacher-forced arg-max equals the target at
every position: both condition on the same tokens up to the first difference. So one forward pass
settles every example that is right as a whole, and only the others are decoded; they may still
reach the right answer through another CoT. The number is that of plain greedy decoding.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from orchestrator.config import Evaluation
from orchestrator.method.data import TokenTable
from orchestrator.method.removal import IGNORED, CutBatch, cut

ANSWER_MARK = "####"
SPEED_REPETITIONS = 3


@dataclass(frozen=True)
class Removed:
    """What is cut from every example that is evaluated; no smoothing offset."""

    tokens: int
    side: str = "left"
    keep_position: bool = False


@dataclass(frozen=True)
class Accuracy:
    """``answer_loss``: mean negative log-likelihood per token of what is left to write, teacher-forced."""

    exact_match: float
    examples: int
    answer_loss: float
    generated_tokens: float


class Evaluator:
    """Measures a model on the validation examples of a job."""

    def __init__(
        self,
        table: TokenTable,
        tokenizer: PreTrainedTokenizerBase,
        is_correct: Callable[[str, str], bool],
        config: Evaluation,
    ) -> None:
        self.table, self.tokenizer, self.is_correct, self.config = table, tokenizer, is_correct, config
        self.size = config.examples or len(table)

    @torch.inference_mode()
    def accuracy(self, model: PreTrainedModel, removed: Removed, *, verify: bool = True) -> Accuracy:
        """Exact match over all examples. ``verify=False`` decodes every example; same result, slower."""
        with _evaluating(model):
            correct, written, losses, tokens = 0, 0, 0.0, 0
            for rows in self._batches():
                batch = self._cut(rows, removed, model.device)
                loss, verified = _teacher_forced(model, batch)
                losses, tokens = losses + loss, tokens + int((batch.labels_BK != IGNORED).sum())
                target_length = (batch.labels_BK != IGNORED).sum(1)
                if not verify:
                    verified = torch.zeros_like(verified)
                correct += int(verified.sum())
                written += int(target_length[verified].sum())
                for row, output in self._decoded(model, rows[~verified.cpu().numpy()], removed):
                    correct += self._is_right(output, row)
                    written += len(output)
        return Accuracy(correct / self.size, self.size, losses / tokens, written / self.size)

    @torch.inference_mode()
    def speed(self, model: PreTrainedModel, removed: Removed, batch_size: int, examples: int) -> float:
        """Examples per second of greedy decoding, tokenizing and reading excluded.

        Each batch counts with the fastest of a few repetitions: the least disturbed one.
        """
        rows = np.arange(examples) % self.size
        seconds = 0.0
        with _evaluating(model):
            for begin in range(0, examples, batch_size):
                batch = rows[begin : begin + batch_size]
                seconds += min(self._seconds(model, batch, removed) for _ in range(SPEED_REPETITIONS))
        return examples / seconds

    def _seconds(self, model: PreTrainedModel, rows: NDArray[np.int64], removed: Removed) -> float:
        _synchronize(model.device)
        started = time.perf_counter()
        list(self._decoded(model, rows, removed))
        _synchronize(model.device)
        return time.perf_counter() - started

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        for begin in range(0, self.size, self.config.batch_size):
            yield np.arange(begin, min(begin + self.config.batch_size, self.size))

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
            limit = self.config.max_new_tokens or int(batch.lengths_B.max()) - length + 16
            limit = min(limit, model.config.max_position_embeddings - int(batch.positions_BK[:, length - 1].max()) - 1)
            written = _greedy(model, batch, length, self.tokenizer.eos_token_id, limit)
            yield from zip(group, written, strict=True)

    def _is_right(self, output: list[int], row: int) -> bool:
        text = self.tokenizer.decode([token for token in output if token != self.tokenizer.eos_token_id])
        return self.is_correct(extract_answer(text), extract_answer(self.table.answers[row]))


def extract_answer(text: str) -> str:
    """What follows ``####``, without commas; a text without the mark is compared whole (released code)."""
    answer = text.split(ANSWER_MARK, 1)[1] if ANSWER_MARK in text else text
    return "".join(answer.replace(",", "").split())


def _teacher_forced(model: PreTrainedModel, batch: CutBatch) -> tuple[float, Tensor]:
    """Summed loss over the labelled tokens, and per example whether the arg-max is right at all of them."""
    first = int((batch.labels_BK != IGNORED).int().argmax(1).min())
    labels = batch.labels_BK[:, first:]
    logits = model(
        input_ids=batch.tokens_BK[:, :-1],
        position_ids=batch.positions_BK[:, :-1],
        logits_to_keep=labels.shape[1],
        use_cache=False,
    ).logits.float()
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    right = (logits.argmax(-1) == labels) | (labels == IGNORED)
    return float(loss), right.all(1)


def _greedy(model: PreTrainedModel, batch: CutBatch, prompt: int, separator: int, limit: int) -> list[list[int]]:
    """Greedy continuations of prompts of ``prompt`` tokens, until the second new separator or ``limit``."""
    tokens, positions = batch.tokens_BK[:, :prompt], batch.positions_BK[:, :prompt]
    cache, columns = DynamicCache(config=model.config), []
    separators = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    for _ in range(limit):
        logits = model(
            input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
        tokens = torch.where(separators[:, None] < 2, logits[:, -1:].argmax(-1), separator)
        positions = positions[:, -1:] + 1
        columns.append(tokens)
        separators += tokens[:, 0] == separator
        if bool((separators >= 2).all()):
            break
    return [_until_second(row, separator) for row in torch.cat(columns, 1).tolist()]


def _until_second(row: list[int], separator: int) -> list[int]:
    ends = [i for i, token in enumerate(row) if token == separator]
    return row[: ends[1] + 1] if len(ends) > 1 else row


class _evaluating:
    """Evaluation mode inside the block; the mode before it afterwards."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
