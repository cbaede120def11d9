"""How the released training script behaves, in our own words: the other side of the step benchmark.

Written from the description in ``research/method.md`` §1.2-1.6, not from its source. Every example is
tokenized at the start; separators are found and tokens are cut by Python loops over the examples of a
batch; the batch is padded to its longest row; the model is Hugging Face's GPT-2 in fp32 with SDPA
attention, makes all logits, and its AdamW is built anew at every removal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from math import exp

import torch
from torch import Tensor
from torch.nn import CrossEntropyLoss
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.tasks import Example

IGNORED = -100
BINS = 100


class Reference:
    """The released loop, some steps at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Iterable[Example],
        batch_size: int,
        learning_rate: float,
        smoothing: float,
    ) -> None:
        self.model, self.separator, self.learning_rate = model, tokenizer.eos_token_id, learning_rate
        self.model.set_attn_implementation("sdpa")
        self.offsets = _offset_distribution(smoothing)
        rows = [_tokenized(example, tokenizer) for example in examples]
        self.loader = DataLoader(rows, batch_size, shuffle=True, collate_fn=self._padded)
        self.batches = self._endless()
        self.set_removed(0)

    def set_removed(self, tokens: int) -> None:
        """Schedule so many CoT tokens for removal; every change of it rebuilds AdamW."""
        self.removed = tokens
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate, fused=True)

    def train(self, steps: int) -> float:
        """Seconds of so many steps."""
        self.model.train()
        started = time.perf_counter()
        for _ in range(steps):
            self.loss(*self._shortened(*next(self.batches))).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.perf_counter() - started

    def loss(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Next-token cross-entropy over all that follows the first separator; logits everywhere."""
        logits = self.model(input_ids=tokens).logits[:, :-1]
        return CrossEntropyLoss()(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        tokens = [torch.tensor(row) for row in rows]
        labels = [row.clone() for row in tokens]
        for row in labels:
            row[: self._position(row, 0) + 1] = IGNORED
        return _stacked(tokens, self.separator), _stacked(labels, IGNORED)

    def _position(self, row: Tensor, which: int) -> int:
        return int((row == self.separator).nonzero()[which, 0])

    def _positions(self, tokens: Tensor, which: int) -> list[int]:
        return [self._position(row, which) for row in tokens]

    def _shortened(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every example without the first tokens of its CoT, and one offset more of them each."""
        first, second, third = (self._positions(tokens, which) for which in range(3))
        offsets = torch.multinomial(self.offsets, len(tokens), replacement=True)
        kept_tokens, kept_labels = [], []
        for row in range(len(tokens)):
            begin = first[row] + 1
            until = min(begin + self.removed + int(offsets[row]), second[row])
            end = third[row] + 1
            kept_tokens.append(torch.cat((tokens[row, :begin], tokens[row, until:end])))
            kept_labels.append(torch.cat((labels[row, :begin], labels[row, until:end])))
        return _stacked(kept_tokens, self.separator), _stacked(kept_labels, IGNORED)


def _tokenized(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = tokenizer.eos_token
    text = f" {example.question} {end} {example.cot} {end} #### {example.answer} {end}"
    return tokenizer(text, add_special_tokens=True)["input_ids"]


def _stacked(rows: list[Tensor], padding: int) -> Tensor:
    stacked = torch.full((len(rows), max(map(len, rows))), padding)
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = row
    return stacked


def _offset_distribution(smoothing: float) -> Tensor:
    """P(o) = (1 - e^-λ) e^-λo over 100 bins, the tail on the last."""
    head = [(1 - exp(-smoothing)) * exp(-smoothing * offset) for offset in range(BINS - 1)]
    return torch.tensor([*head, max(0.0, 1 - sum(head))])
