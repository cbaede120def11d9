"""AdamW as the method uses it: clipped gradients, a warm-up after every reset, state that is saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.config import Training
from orchestrator.method.workers import gathered, over_all, split_like


class Optimizer:
    """Lives through a chain of stages; ``reset`` forgets its moments, as the paper does at every removal."""

    def __init__(self, model: PreTrainedModel, training: Training) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.training = training
        self.reset()

    def reset(self) -> None:
        self.steps = 0
        self.adamw = torch.optim.AdamW(
            self.parameters,
            lr=self.training.learning_rate,
            betas=(self.training.beta1, self.training.beta2),
            weight_decay=self.training.weight_decay,
            fused=True,
        )

    def step(self, share: float) -> Tensor:
        """One update at this share of the learning rate. Returns the gradient's norm before clipping."""
        self.steps += 1
        warmth = min(1.0, self.steps / self.training.warmup_steps) if self.training.warmup_steps else 1.0
        for group in self.adamw.param_groups:
            group["lr"] = self.training.learning_rate * warmth * share
        norm = over_all(torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm))
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The state under flat names, for the first worker's safetensors. Collective where weights are split."""
        state = self.adamw.state_dict()["state"]
        moments = {f"{i}.{name}": gathered(value) for i, entry in state.items() for name, value in entry.items()}
        return {**moments, "steps": torch.tensor(self.steps)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors`` returned."""
        self.reset()
        self.steps = int(tensors["steps"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name != "steps":
                index, key = name.split(".")
                share = split_like(value, self.parameters[int(index)]) if value.dim() else value
                state.setdefault(int(index), {})[key] = share
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": state})
