"""Greedy decoding, from prompts or on from the middle of texts that the model has read.

Rows are written together. A row ends with its second separator or at its limit; when half of those in the batch
have ended, they leave it.

Shapes: B rows, S tokens seen, H heads, D values of a head, T tokens written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

ROOM = 64
"""Tokens for which a cache takes memory at a time."""


@dataclass
class Writing:
    """Rows in the middle of being written."""

    cache: Cache
    """Keys and values of all tokens before the next."""
    seen_BS: Tensor | None
    """False where a shorter row is padded on its left. None: no row is."""
    next_B: Tensor
    """The token that was written last; the model has yet to see it."""
    positions_B: Tensor
    """Of ``next_B``."""

    def step(self, model: PreTrainedModel) -> None:
        if self.seen_BS is not None:
            self.seen_BS = torch.cat([self.seen_BS, torch.ones_like(self.seen_BS[:, :1])], 1)
        logits = model(
            input_ids=self.next_B[:, None],
            attention_mask=self.seen_BS,
            position_ids=self.positions_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self.next_B = logits[:, -1].argmax(-1)
        # A row that has ended may still be here, and have no position left.
        self.positions_B = (self.positions_B + 1).clamp(max=model.config.max_position_embeddings - 1)

    def keep(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)
        self.seen_BS = None if self.seen_BS is None else self.seen_BS[rows]
        self.next_B, self.positions_B = self.next_B[rows], self.positions_B[rows]


def greedy(
    model: PreTrainedModel, tokens_BS: Tensor, positions_BS: Tensor, separator: int, limits: list[int]
) -> list[list[int]]:
    """Greedy continuations of prompts of one length, up to and with the second new separator, or to their limit."""
    cache = new_cache(model)
    logits = model(
        input_ids=tokens_BS, position_ids=positions_BS, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits
    begun = Writing(cache, None, logits[:, -1].argmax(-1), positions_BS[:, -1] + 1)
    return write_on(model, begun, separator, [[] for _ in limits], limits)


def write_on(
    model: PreTrainedModel, writing: Writing, separator: int, before: list[list[int]], limits: list[int]
) -> list[list[int]]:
    """All that rows write. ``before``: what they wrote before the next token; ``limits``: tokens in all."""
    device = writing.next_B.device
    rows_B = torch.arange(len(limits), device=device)
    separators_B = torch.tensor([row.count(separator) for row in before], device=device)
    left_B = torch.tensor([limit - len(row) for row, limit in zip(before, limits, strict=True)], device=device)
    columns_BT = torch.full((len(limits), int(left_B.max())), separator, device=device)
    for column in range(columns_BT.shape[1]):
        columns_BT[rows_B, column] = writing.next_B
        separators_B[rows_B] += writing.next_B == separator
        on = ((separators_B < 2) & (column + 1 < left_B))[rows_B].nonzero()[:, 0]
        if len(on) == 0:
            break
        if 2 * len(on) <= len(rows_B):
            writing.keep(on)
            rows_B = rows_B[on]
        writing.step(model)
    rows = zip(before, columns_BT.tolist(), limits, strict=True)
    return [_until_second([*begun, *more][:limit], separator) for begun, more, limit in rows]


def _until_second(row: list[int], separator: int) -> list[int]:
    ends = [i for i, token in enumerate(row) if token == separator]
    return row[: ends[1] + 1] if len(ends) > 1 else row


def new_cache(model: PreTrainedModel) -> Cache:
    """An empty cache of every token's keys and values; where a model looks at the last ones alone, the mask sees to
    that. A memory of another kind (a state in place of tokens) is as transformers makes it.
    """
    cache = DynamicCache(config=model.config)
    if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        cache.layers = [_Layer() for _ in cache.layers]
    return cache


def keeps_tokens(cache: Cache) -> bool:
    """Whether ``beginnings`` can be had of a cache."""
    return all(isinstance(layer, _Layer) for layer in cache.layers)


def beginnings(cache: Cache, rows_B: Tensor, lengths_B: Tensor) -> tuple[Cache, Tensor | None]:
    """The first tokens of some rows, padded on the left, and which of them are no padding (None: all)."""
    longest = int(lengths_B.max())
    columns_BS = torch.arange(longest, device=lengths_B.device) - (longest - lengths_B)[:, None]
    picked = DynamicCache()
    picked.layers = [layer.picked(rows_B, columns_BS.clamp(min=0)) for layer in cache.layers]
    return picked, None if bool((columns_BS >= 0).all()) else columns_BS >= 0


class _Layer(DynamicLayer):
    """Appends in place, to memory taken beforehand. Its base copies all it has for every token."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        self.memory: list[Tensor] = []
        if keys is not None:
            self.update(keys, values)

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values
            return keys, values
        before, after = self.keys.shape[-2], self.keys.shape[-2] + keys.shape[-2]
        if not self.memory or self.memory[0].shape[-2] < after:
            self.memory = [_with_room(self.keys, after), _with_room(self.values, after)]
        for memory, states in zip(self.memory, (keys, values), strict=True):
            memory[:, :, before:after] = states
        self.keys, self.values = (memory[:, :, :after] for memory in self.memory)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.memory = []

    def picked(self, rows_B: Tensor, columns_BS: Tensor) -> _Layer:
        pick = rows_B[:, None], columns_BS
        keys_BSHD, values_BSHD = self.keys.transpose(1, 2)[pick], self.values.transpose(1, 2)[pick]
        return _Layer(keys_BSHD.transpose(1, 2), values_BSHD.transpose(1, 2))


def _with_room(states_BHSD: Tensor, tokens: int) -> Tensor:
    rows, heads, seen, size = states_BHSD.shape
    memory = states_BHSD.new_empty(rows, heads, tokens + ROOM, size)
    memory[:, :, :seen] = states_BHSD
    return memory
