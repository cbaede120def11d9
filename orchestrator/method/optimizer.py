"""The optimizers of a stage: AdamW, or Muon for the hidden matrices with AdamW for the rest.

Both clip gradients, may warm up after every reset, and give their state away under flat names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.config import Training
from orchestrator.method.muon import Muon, hidden_matrices
from orchestrator.method.workers import gathered, over_all, split_like


class Optimizer:
    """Lives through a chain of stages; ``reset`` forgets its moments, as the paper does at every removal."""

    def __init__(self, model: PreTrainedModel, training: Training) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.training = training
        self.matrices = hidden_matrices(model) if training.optimizer == "muon" else []
        by_muon = {id(matrix.weight) for matrix in self.matrices}
        self.by_adamw = [p for p in self.parameters if id(p) not in by_muon]
        self.reset()

    def reset(self) -> None:
        training = self.training
        self.steps = 0
        self.adamw = torch.optim.AdamW(
            self.by_adamw,
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.muon = Muon(self.matrices, training.weight_decay)

    def step(self, share: float) -> Tensor:
        """Update the weights once, at this share of the learning rate. Return the gradient's norm before clipping."""
        self.steps += 1
        warmth = min(1.0, self.steps / self.training.warmup_steps) if self.training.warmup_steps else 1.0
        rate = self.training.learning_rate * warmth * share
        norm = over_all(torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm))
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.muon.step(rate)
        for parameter in self.parameters:
            parameter.grad = None
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The state under flat names, for the first worker's safetensors. Collective where weights are split."""
        state = self.adamw.state_dict()["state"]
        moments = {f"{i}.{name}": gathered(value) for i, entry in state.items() for name, value in entry.items()}
        momenta = {f"muon.{i}": momentum for i, momentum in enumerate(self.muon.momenta)}
        return {**moments, **momenta, "steps": torch.tensor(self.steps)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors`` returned."""
        self.reset()
        self.steps = int(tensors["steps"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name == "steps":
                continue
            index, key = name.split(".")
            if index == "muon":
                self.muon.momenta[int(key)].copy_(value)
            else:
                share = split_like(value, self.by_adamw[int(index)]) if value.dim() else value
                state.setdefault(int(index), {})[key] = share
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": state})
