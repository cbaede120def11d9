"""Muon (Jordan et al. 2024): a momentum whose update is made orthogonal, for the hidden matrices of a model.

``torch.optim.Muon`` iterates in bf16, which a CPU without bf16 products computes thirty times slower than fp32, and
takes a fused query-key-value matrix as one. Here the three are orthogonalized apart, matrices of one shape are
iterated together, and the iteration is in fp32 on a CPU. The update is scaled so that AdamW's rate can be kept
(Liu et al. 2025, arXiv 2502.16982: 0.2 sqrt(max(rows, columns))).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""The quintic of Jordan et al.: five iterations bring singular values into about 0.7 to 1.2."""
RMS = 0.2
"""The usual root mean square of AdamW's update (Liu et al. 2025)."""


@dataclass(frozen=True)
class HiddenMatrix:
    """A weight of a block, and the parts of it that are matrices of their own."""

    weight: Tensor
    parts: tuple[tuple[slice, slice], ...]
    """Rows and columns of each part."""


def hidden_matrices(model: PreTrainedModel) -> list[HiddenMatrix]:
    """Return all trained matrices but embeddings and head, in the model's order.

    A fused projection is cut into what it is made of: GPT-2's ``c_attn`` and Phi-3's ``qkv_proj`` into query, key and
    value, Phi-3's ``gate_up_proj`` into gate and up.
    """
    outside = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    head = model.get_output_embeddings()
    if head is not None:
        outside.add(id(head.weight))
    return [
        HiddenMatrix(weight, _parts(name, weight, model))
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.dim() == 2 and id(weight) not in outside
    ]


def _parts(name: str, weight: Tensor, model: PreTrainedModel) -> tuple[tuple[slice, slice], ...]:
    rows, columns = weight.shape
    kind = name.split(".")[-2]
    if kind == "c_attn":  # Conv1D: outputs are columns
        size = columns // 3
        return tuple((slice(None), slice(i * size, (i + 1) * size)) for i in range(3))
    if kind == "qkv_proj":
        config = model.config
        key = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
        ends = (0, rows - 2 * key, rows - key, rows)
        return tuple((slice(start, end), slice(None)) for start, end in pairwise(ends))
    if kind == "gate_up_proj":
        return (slice(None, rows // 2), slice(None)), (slice(rows // 2, None), slice(None))
    return ((slice(None), slice(None)),)


class Muon:
    """Nesterov momentum, orthogonalized, with decoupled weight decay."""

    def __init__(self, matrices: Sequence[HiddenMatrix], weight_decay: float) -> None:
        self.matrices = matrices
        self.weight_decay = weight_decay
        self.momenta = [torch.zeros_like(matrix.weight) for matrix in matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every matrix from its gradient. A matrix without a gradient stays as it is."""
        views: list[Tensor] = []
        updates: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
        for matrix, momentum in zip(self.matrices, self.momenta, strict=True):
            gradient = matrix.weight.grad
            if gradient is None:
                continue
            momentum.lerp_(gradient, 1 - MOMENTUM)
            ahead = gradient.lerp(momentum, MOMENTUM)
            matrix.weight.mul_(1 - rate * self.weight_decay)
            for part in matrix.parts:
                update = ahead[part]
                wide = update if update.shape[0] <= update.shape[1] else update.mT
                updates.setdefault(tuple(wide.shape), []).append((len(views), wide))
                views.append(matrix.weight[part])
        for (rows, columns), group in updates.items():
            orthogonal = orthogonalized(torch.stack([wide for _, wide in group]))
            for (at, _), change in zip(group, orthogonal, strict=True):
                change = change if change.shape == views[at].shape else change.mT
                views[at].add_(change, alpha=-rate * RMS * max(rows, columns) ** 0.5)


def orthogonalized(update_NRC: Tensor) -> Tensor:
    """Return the nearest (semi-)orthogonal matrices, roughly: five Newton-Schulz iterations.

    ``update_NRC``: N matrices of R rows and C columns, R at most C.
    """
    a, b, c = COEFFICIENTS
    # bf16 products are slow on most CPUs, and the matrices of a model that trains on one are small.
    x = update_NRC.float() if update_NRC.device.type == "cpu" else update_NRC.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.to(update_NRC.dtype)
