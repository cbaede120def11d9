"""A trial's workers: what the first tells all, and weights split over them (FSDP2).

Split, each worker keeps and trains its share of weights, gradients and moments.

The first worker has a whole copy of the model beside its share, to measure and to save with; so a stage's
files are the same whatever the workers were. Whatever makes something whole here is collective: all workers
call it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from orchestrator.method.models.layers import decoder_layers

Gather = Callable[[], PreTrainedModel | None]
"""The model as it is now, whole: on the first worker, and of a model that is not split on every one."""


def split(model: PreTrainedModel, device: torch.device) -> Gather:
    """Split ``model`` over all workers, in place and layer by layer, each share on its device."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = copy.deepcopy(model).to(device) if dist.get_rank() == 0 else None
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)

    @torch.no_grad()
    def gather() -> PreTrainedModel | None:
        copies = dict(whole.named_parameters()) if whole else {}
        for name, share in model.named_parameters():
            if share.requires_grad:  # the rest is as it was
                value = share.full_tensor()
                if whole:
                    copies[name].copy_(value)
        return whole

    return gather


def is_split(model: torch.nn.Module) -> bool:
    """Return whether this worker has only a share of the model's weights."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def gathered(tensor: Tensor) -> Tensor:
    """A tensor to be saved by the first worker: of one that is split, all of it there and nothing elsewhere."""
    if not isinstance(tensor, DTensor):
        return tensor.contiguous()
    full = tensor.full_tensor()
    return full.cpu() if dist.get_rank() == 0 else torch.empty(0)


def over_all(norm: Tensor) -> Tensor:
    """The norm of tensors that may be split, of which each worker then knows a part."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def split_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This worker's share of a whole tensor that all workers have, if ``like`` is split."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


T = TypeVar("T")


def told(value: T) -> T:
    """The first worker's value, known to all. Collective."""
    message = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(message, src=0)
    return message[0]
