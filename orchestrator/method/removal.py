"""Cutting a batch: removal smoothing, then one gather that takes the removed tokens out.

Shapes: B examples of a batch, L tokens of its longest example before the cut, K after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.method.schedule import smoothing_distribution

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Whole examples, right-padded: question, separator, CoT, separator, answer, separator."""

    tokens_BL: Tensor
    lengths_B: Tensor
    cot_start_B: Tensor
    """Position of the first CoT token: the one after the first separator."""
    cot_end_B: Tensor
    """Position of the second separator."""

    def rows(self, selected: slice | Tensor) -> Batch:
        return Batch(
            self.tokens_BL[selected], self.lengths_B[selected], self.cot_start_B[selected], self.cot_end_B[selected]
        )

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class CutBatch:
    """A batch after the cut, as the model sees it. Labels are not shifted; the question and padding are ignored."""

    tokens_BK: Tensor
    labels_BK: Tensor
    positions_BK: Tensor
    lengths_B: Tensor

    @property
    def attention_mask(self) -> Tensor:
        """Ones: padding is on the right, where no token sees it.

        Without a mask transformers would read a jump in the position ids as the start of another text.
        """
        return torch.ones_like(self.tokens_BK)


def draw_removed(removed_tokens: int, smoothing_lambda: float, size: int, generator: torch.Generator) -> Tensor:
    """Tokens to remove from each of ``size`` examples: s + o with o drawn per example (paper §3)."""
    probabilities = torch.tensor(smoothing_distribution(smoothing_lambda))
    offsets = torch.multinomial(probabilities, size, replacement=True, generator=generator)
    return removed_tokens + offsets


def without_long(batch: CutBatch, most_tokens: int) -> CutBatch:
    """Without the examples that are longer than this. Their rows stay, so that workers share a batch as ever, but
    hold two tokens of which none is learnt.
    """
    fits_B = batch.lengths_B <= most_tokens
    lengths_B = torch.where(fits_B, batch.lengths_B, 2)
    columns = slice(int(lengths_B.max()))
    inside_BK = torch.arange(columns.stop, device=lengths_B.device) < lengths_B[:, None]
    return CutBatch(
        tokens_BK=torch.where(inside_BK, batch.tokens_BK[:, columns], 0),
        labels_BK=torch.where(fits_B[:, None], batch.labels_BK[:, columns], IGNORED),
        positions_BK=torch.where(inside_BK, batch.positions_BK[:, columns], 0),
        lengths_B=lengths_B,
    )


def cut(batch: Batch, removed_B: Tensor, side: str = "left", keep_position: bool = False) -> CutBatch:
    """Remove up to ``removed_B`` CoT tokens from one side of each CoT; separators always stay.

    With ``keep_position`` the tokens from the first separator on keep the position ids they had, so
    the separator moves next to what remains (released code).
    """
    cut_B = torch.minimum(removed_B, batch.cot_end_B - batch.cot_start_B)
    from_B = batch.cot_start_B if side == "left" else batch.cot_end_B - cut_B
    lengths_B = batch.lengths_B - cut_B
    target_K = torch.arange(int(lengths_B.max()), device=batch.tokens_BL.device)
    source_BK = target_K + cut_B[:, None] * (target_K >= from_B[:, None])
    inside_BK = target_K < lengths_B[:, None]
    tokens_BK = batch.tokens_BL.gather(1, source_BK.clamp(max=batch.tokens_BL.shape[1] - 1))
    learnt_BK = inside_BK & (target_K >= batch.cot_start_B[:, None])
    shift_BK = cut_B[:, None] * (target_K >= batch.cot_start_B[:, None] - 1) * keep_position
    return CutBatch(
        tokens_BK=torch.where(inside_BK, tokens_BK, 0),
        labels_BK=torch.where(learnt_BK, tokens_BK, IGNORED),
        positions_BK=torch.where(inside_BK, target_K + shift_BK, 0),
        lengths_B=lengths_B,
    )
