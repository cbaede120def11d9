"""The hidden state that enters each decoder layer, at one position of every example: seen, or replaced.

Works on any Hugging Face causal LM that keeps its decoder layers in one list, as GPT-2, Llama, Mistral, Qwen
and Phi do. Shapes: B examples, L layers, S tokens, H width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from orchestrator.errors import InputError, Problem
from orchestrator.method.models.hub import KNOWN

Change = Callable[[int, Tensor], Tensor | None]
"""Told a layer's index and the states (B, H) that enter it; returns what takes their place, or None."""


def decoder_layers(network: PreTrainedModel) -> nn.ModuleList:
    """The layers in order. Raises ``InputError`` for a model that has no such list."""
    count = network.config.get_text_config().num_hidden_layers
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    found = f"{type(network).__name__} has no list of its {count} decoder layers"
    fix = f"icot_kd and resources.shard need its layers: {KNOWN}"
    raise InputError(Problem("MOD010", "model.name", found, fix))


@contextmanager
def entering(network: PreTrainedModel, positions_BL: Tensor, change: Change) -> Iterator[None]:
    """Inside the block, ``change`` is asked before layer l runs, with the states at ``positions_BL[:, l]``."""
    with ExitStack() as hooks:
        for index, layer in enumerate(decoder_layers(network)):
            hook = partial(_before_layer, index, positions_BL[:, index], change)
            hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _before_layer(
    index: int, positions_B: Tensor, change: Change, layer: nn.Module, words: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    states_BSH = words[0] if words else named["hidden_states"]
    at = (torch.arange(len(positions_B), device=states_BSH.device), positions_B)
    new_BH = change(index, states_BSH[at])
    if new_BH is not None:
        states_BSH = states_BSH.index_put(at, new_BH.to(states_BSH.dtype))
    return ((states_BSH, *words[1:]), named) if words else (words, {**named, "hidden_states": states_BSH})
