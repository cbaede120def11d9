"""Linear probes: what can be read off a model's hidden states, layer by layer and position by position.

One probe for every layer, position and intermediate result: linear discriminants of the ten digits, or a ridge
regression on ĉ_k, both solved exactly. Probes learn on training examples and are scored on validation examples,
which no model was trained on. The same is done with an untrained model of the same shape: what a probe finds there,
training did not put there. The answer is part of the input (teacher forcing), up to each position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.errors import InputError, Problem
from orchestrator.method.evaluate import Removed
from orchestrator.method.probing.intermediates import Intermediate
from orchestrator.method.removal import cut
from orchestrator.method.tokens import TokenTable

RIDGE = 0.01
"""Added to every variance, of dimensions scaled to 1."""
FORWARD = 250
"""Examples of a forward pass."""

Grid = tuple[tuple[float, ...], ...]
"""Layer x position. Layer 0 is the embeddings; the last one is what the logits are made from."""


@dataclass(frozen=True)
class ProbeScores:
    """How well an intermediate result is read: accuracy of a digit, mean absolute error of ĉ_k."""

    target: Intermediate
    constant: float
    """The score of a constant: the most frequent digit, or the median, of the training examples."""
    trained: Grid
    untrained: Grid

    def skill(self, score: float) -> float:
        """0: no better than the constant; 1: perfect."""
        if self.target.is_digit:
            return (score - self.constant) / (1 - self.constant) if self.constant < 1 else 0.0
        return 1 - score / self.constant if self.constant else 0.0


@dataclass(frozen=True)
class Probed:
    """Examples as a stage's model sees them, and what they go through on the way."""

    table: TokenTable
    rows: range
    targets: tuple[Intermediate, ...]

    def tokens(self, removed: Removed) -> tuple[Tensor, Tensor]:
        """(examples, positions) token ids and position ids. Raises ``InputError`` if lengths differ."""
        batch = self.table.batch(np.array(self.rows))
        shorter = cut(batch, torch.full((len(self.rows),), removed.tokens), removed.side, removed.keep_position)
        if len(shorter.lengths_B.unique()) > 1:
            found = "its examples differ in length, so a position means something else in each"
            raise InputError(Problem("PRB002", "the task", found, "probe a multiplication with fixed digits"))
        return shorter.tokens_BK, shorter.positions_BK


def probe_scores(model: PreTrainedModel, learn: Probed, score: Probed, removed: Removed) -> tuple[ProbeScores, ...]:
    """Probe a model and an untrained one of its shape for every intermediate result."""
    torch.manual_seed(0)
    untrained = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32, trust_remote_code=False).eval()
    grids = [_grids(one, learn, score, removed) for one in (model.eval(), untrained)]
    return tuple(
        ProbeScores(target, _constant(target, on), *by_model)
        for target, on, *by_model in zip(learn.targets, score.targets, *grids, strict=True)
    )


def position_names(score: Probed, removed: Removed, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a name for each position: a0, *, b0, the separator E, the rest of the CoT (z0), and the answer c0."""
    tokens = score.tokens(removed)[0][0].tolist()
    parts, counts, names = ["a", "z", "c"], {"a": 0, "b": 0, "c": 0, "z": 0}, []
    part, first_separator = parts.pop(0), int(score.table.cot_start[0]) - 1
    for position, token in enumerate(tokens):
        text = tokenizer.convert_ids_to_tokens(token).strip("Ġ▁")
        name = text or "␣"
        if token == tokenizer.eos_token_id and position >= first_separator:
            name, part = "E", parts.pop(0) if parts else part
        elif text == "*":
            part = "b"
        elif text.isdigit() or part == "z":
            name = f"{part}{counts[part]}"
            counts[part] += 1
        names.append(name)
    return names


def _grids(model: PreTrainedModel, learn: Probed, score: Probed, removed: Removed) -> list[Grid]:
    """The scores of every target, one layer in memory at a time."""
    by_layer = [
        _layer_scores(
            *_scaled(_states(model, learn, removed, layer), _states(model, score, removed, layer)), learn, score
        )
        for layer in range(model.config.num_hidden_layers + 1)
    ]
    return [tuple(layers) for layers in zip(*by_layer, strict=True)]


@torch.inference_mode()
def _states(model: PreTrainedModel, probed: Probed, removed: Removed, layer: int) -> Tensor:
    """(positions, examples, width) hidden states after a layer."""
    tokens, positions = probed.tokens(removed)
    parts = [
        model(
            input_ids=some.to(model.device),
            attention_mask=torch.ones_like(some).to(model.device),
            position_ids=at.to(model.device),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        ).hidden_states[layer]
        for some, at in zip(tokens.split(FORWARD), positions.split(FORWARD), strict=True)
    ]
    return torch.cat(parts).transpose(0, 1).contiguous().float()


def _scaled(learn: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Every dimension at mean 0 and deviation 1 over the examples that are learnt from."""
    mean, deviation = learn.mean(1, keepdim=True), learn.std(1, keepdim=True).clamp(min=1e-6)
    return (learn - mean) / deviation, (score - mean) / deviation


def _layer_scores(learn: Tensor, score: Tensor, on: Probed, against: Probed) -> list[tuple[float, ...]]:
    """For every target its score at every position."""
    digits, numbers = _split(on)
    true_digits, true_numbers = _split(against)
    right = (_discriminants_said(learn, digits, score) == true_digits).float().mean(1)
    missed = (_ridge_said(learn, numbers.float(), score) - true_numbers).abs().mean(1)
    return [tuple(positions.tolist()) for positions in torch.cat([right, missed], 1).T]


def _split(probed: Probed) -> tuple[Tensor, Tensor]:
    """(examples, targets) of the digits, and of the numbers that come after them."""
    values = torch.from_numpy(np.stack([target.values for target in probed.targets], 1))
    digits = sum(target.is_digit for target in probed.targets)
    return values[:, :digits], values[:, digits:]


def _discriminants_said(learn: Tensor, digits: Tensor, score: Tensor) -> Tensor:
    """(positions, examples, targets) digits that linear discriminants say."""
    size, said = learn.shape[1], []
    moment = learn.mT @ learn / size + RIDGE * torch.eye(learn.shape[2])
    for digit in digits.T:
        member = F.one_hot(digit, 10).float()
        count = member.sum(0)[:, None]
        mean = member.T @ learn / count.clamp(min=1)
        weight = torch.linalg.solve(moment - mean.mT @ (count / size * mean), mean.mT)
        bias = (count / size).log().T - (mean.mT * weight).sum(1, keepdim=True) / 2
        said.append((score @ weight + bias).argmax(-1))
    return torch.stack(said, -1)


def _ridge_said(learn: Tensor, numbers: Tensor, score: Tensor) -> Tensor:
    """(positions, examples, targets) numbers that ridge regressions say, solved exactly."""
    mean = numbers.mean(0)
    penalty = RIDGE * learn.shape[1] * torch.eye(learn.shape[2])
    weight = torch.linalg.solve(learn.mT @ learn + penalty, learn.mT @ (numbers - mean))
    return score @ weight + mean


def _constant(learnt: Intermediate, on: Intermediate) -> float:
    if learnt.is_digit:
        return float((on.values == np.bincount(learnt.values).argmax()).mean())
    return float(np.abs(on.values - np.median(learnt.values)).mean())
