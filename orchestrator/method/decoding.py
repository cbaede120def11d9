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

from orchestrator.method.models.hub import positions_of


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
    """The position ids of ``next_B``."""

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
        self.positions_B = (self.positions_B + 1).clamp(max=positions_of(model.config) - 1)

    def keep(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)
        self.seen_BS = None if self.seen_BS is None else self.seen_BS[rows]
        self.next_B, self.positions_B = self.next_B[rows], self.positions_B[rows]


def greedy(
    model: PreTrainedModel, tokens_BS: Tensor, positions_BS: Tensor, separator: int, limits: list[int]
) -> list[list[int]]:
    """Greedy continuations of prompts of one length, up to and with the second new separator, or to their limit."""
    cache = DynamicCache(config=model.config)
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


def whole_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache that keeps every token, also where a model looks at a window of the last ones alone: the mask
    sees to that. None for a model that remembers in another way.
    """
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    return DynamicCache() if kinds <= {DynamicLayer, DynamicSlidingWindowLayer} else None


def beginnings(cache: DynamicCache, rows_B: Tensor, lengths_B: Tensor) -> tuple[DynamicCache, Tensor | None]:
    """The first tokens of some rows, padded on the left, and which of them are no padding (None: all).

    Empties ``cache`` layer by layer, so that the memory does not hold both.
    """
    longest = int(lengths_B.max())
    columns_BS = torch.arange(longest, device=lengths_B.device) - (longest - lengths_B)[:, None]
    pick, picked = (rows_B[:, None], columns_BS.clamp(min=0)), DynamicCache()
    for index in range(len(cache.layers)):
        layer = cache.layers.pop(0)
        states_BHSD = [states.transpose(1, 2)[pick].transpose(1, 2) for states in (layer.keys, layer.values)]
        picked.update(*states_BHSD, index)
    seen_BS = columns_BS >= 0
    return picked, None if bool(seen_BS.all()) else seen_BS
