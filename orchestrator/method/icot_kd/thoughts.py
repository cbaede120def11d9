"""The networks of ICoT-KD: who reads thoughts, who thinks them up, and the two as one model.

A *thought* is one vector a layer, taken from the teacher while it writes its CoT: layer after layer and
position after position, a diagonal through its states. The student finds them in place of its own states at
the first separator; so it reasons upwards through its layers where the teacher reasoned along its text.

Sources: Deng et al. 2023 and its code, as described in the research notes (method.md §3). Two things differ.
The answer follows in this repository's No CoT format, with two separators, so that all methods are asked
alike. And each example has a diagonal of its own: the released code gives a batch that of its first example.

Shapes: B examples, S tokens, L layers, H width, M mixture vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutputWithPast

from orchestrator.method.encoding import added_before
from orchestrator.method.models.layers import decoder_layers, entering
from orchestrator.method.models.model import load_weights, stage_tokenizer
from orchestrator.method.removal import Batch

STUDENT, EMULATOR = "student", "emulator"
HEADS = "thoughts.safetensors"


def diagonal_positions(first_B: Tensor, second_B: Tensor, layers: int) -> Tensor:
    """Return the positions of each layer's thought (B, L): even steps from the first separator to the second."""
    if layers == 1:
        return first_B[:, None]
    share_L = torch.arange(layers, dtype=torch.float64, device=first_B.device) / (layers - 1)
    return (first_B[:, None] + (second_B - first_B)[:, None] * share_L).round().long()


@torch.no_grad()
def teacher_thoughts(teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """The states that enter the teacher's layers on the diagonal of each example, normalized (B, L, H)."""
    positions_BL = diagonal_positions(batch.cot_start_B - 1, batch.cot_end_B, len(decoder_layers(teacher)))
    states: list[Tensor] = []

    def take(layer: int, state_BH: Tensor) -> None:
        states.append(F.layer_norm(state_BH.float(), state_BH.shape[-1:]))

    with entering(teacher, positions_BL, take):
        _read(teacher, batch.tokens_BL[:, : int(batch.cot_end_B.max()) + 1])
    return torch.stack(states, 1)


class Student(nn.Module):
    """A language model that has an MLP of its thought in place of each layer's state at the first separator."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        width = network.config.get_text_config().hidden_size
        self.network = network
        self.heads = nn.ModuleList(_mlp(width, width) for _ in decoder_layers(network))

    def forward(self, thoughts_BLH: Tensor, separator_B: Tensor, **inputs: Any) -> CausalLMOutputWithPast:
        """As the network, over whole prompts."""
        read = [head(thought_BH) for head, thought_BH in zip(self.heads, thoughts_BLH.unbind(1), strict=True)]
        positions_BL = separator_B[:, None].expand(-1, len(read))
        with entering(self.network, positions_BL, lambda layer, _: read[layer]):
            return self.network(**inputs)


class Emulator(nn.Module):
    """A language model that reads the question and says at each layer what the teacher's thought would be.

    What it says also goes into a recurrence over the layers, an LSTM that attends to its own past, and the
    result is the state that the layer goes on with.
    """

    def __init__(self, network: PreTrainedModel, mixture_size: int, temperature: float) -> None:
        super().__init__()
        width = network.config.get_text_config().hidden_size
        self.network = network
        self.heads = nn.ModuleDict(
            {
                "predict": nn.ModuleList(_mlp(2 * width, width) for _ in decoder_layers(network)),
                "mixture": nn.Embedding(mixture_size, width),
                "recurrence": nn.LSTMCell(width, width),
                "key": nn.Linear(width, width),
                "query": nn.Linear(width, width),
                "out": nn.Linear(2 * width, width),
            }
        )
        self.heads.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, tokens_BS: Tensor, separator_B: Tensor) -> Tensor:
        """The thoughts (B, L, H) for questions whose separator is at ``separator_B``; later tokens are not seen."""
        layers = len(self.heads["predict"])
        thoughts: list[Tensor] = []
        memory = _Memory(self.heads, separator_B)

        def think(layer: int, state_BH: Tensor) -> Tensor:
            with torch.autocast(state_BH.device.type, enabled=False):
                state_BH = state_BH.float()
                seen_BH = torch.cat([state_BH, self.mixed(state_BH)], -1)
                thoughts.append(self.heads["predict"][layer](seen_BH))
                return memory.after(thoughts[-1])

        with entering(self.network, separator_B[:, None].expand(-1, layers), think):
            _read(self.network, tokens_BS[:, : int(separator_B.max()) + 1])
        return torch.stack(thoughts, 1)

    def mixed(self, state_BH: Tensor) -> Tensor:
        """The mixture vectors, weighted by their likeness to the state (B, H)."""
        vectors_MH = self.heads["mixture"].weight
        weights_BM = F.softmax(state_BH @ vectors_MH.T / self.heads.temperature, -1)
        return weights_BM @ vectors_MH


class _Memory:
    """The recurrence of one forward pass: the keys of the layers so far are what later ones attend to."""

    def __init__(self, heads: nn.ModuleDict, like_B: Tensor) -> None:
        self.heads = heads
        zeros_BH = heads["key"].weight.new_zeros(len(like_B), heads["key"].in_features)
        self.state, self.context_BH = (zeros_BH, zeros_BH), zeros_BH
        self.keys: list[Tensor] = []

    def after(self, thought_BH: Tensor) -> Tensor:
        """The state that the next layer works on (B, H)."""
        self.state = self.heads["recurrence"](thought_BH + self.context_BH, self.state)
        out_BH = self.state[0]
        if self.keys:
            keys_BLH = torch.stack(self.keys, 1)
            weights_BL = F.softmax(torch.einsum("blh,bh->bl", keys_BLH, self.heads["query"](out_BH)), -1)
            self.context_BH = torch.einsum("bl,blh->bh", weights_BL, keys_BLH)
        self.keys.append(self.heads["key"](out_BH))
        return self.heads["out"](torch.cat([out_BH, self.context_BH], -1))


class Part(nn.Module):
    """What the parts of ICoT-KD have in common with a language model, for whoever places, trains and saves them.

    They train without dropout (as the released code does), so there is no training mode.
    """

    @property
    def networks(self) -> list[PreTrainedModel]:
        return [module for module in self.modules() if isinstance(module, PreTrainedModel)]

    @property
    def device(self) -> torch.device:
        return self.networks[0].device

    def set_attn_implementation(self, name: str) -> None:
        for network in self.networks:
            network.set_attn_implementation(name)

    def train(self, mode: bool = True) -> Part:
        return super().train(False)

    def save_pretrained(self, folder: Path) -> None:
        """``student/`` and ``emulator/``, those of the two that the part trains.

        Each is a Hugging Face folder with the network, and in ``thoughts.safetensors`` its own small heads.
        """
        for name, model in self.named_children():
            if name in (STUDENT, EMULATOR):
                model.network.save_pretrained(folder / name)
                heads = {key: value.contiguous() for key, value in model.heads.state_dict().items()}
                save_file(heads, folder / name / HEADS)


class Coupled(Part):
    """Emulator and student as one model: called, and greedily decoded, as a causal language model.

    ``before``: tokens that every text begins with. A BOS that is also the separator is none.
    """

    def __init__(self, student: Student, emulator: Emulator, separator: int, before: int) -> None:
        super().__init__()
        self.student, self.emulator, self.separator, self.before = student, emulator, separator, before
        self.train()

    @property
    def config(self) -> PreTrainedConfig:
        return self.student.network.config

    def forward(self, input_ids: Tensor, past_key_values: Any = None, **options: Any) -> CausalLMOutputWithPast:
        """The prompt is thought about once: what follows finds the thoughts in the student's cache."""
        options |= {"input_ids": input_ids, "past_key_values": past_key_values}
        if past_key_values is not None and past_key_values.get_seq_length():
            return self.student.network(**options)
        separator_B = (input_ids[:, self.before :] == self.separator).int().argmax(1) + self.before
        return self.student(self.emulator(input_ids, separator_B), separator_B, **options)


def load_student(folder: Path) -> Student:
    """The student of a committed stage."""
    student = Student(load_weights(folder / STUDENT))
    student.heads.load_state_dict(load_file(folder / STUDENT / HEADS))
    return student


def load_emulator(folder: Path) -> Emulator:
    """The emulator of a committed stage."""
    heads = load_file(folder / EMULATOR / HEADS)
    emulator = Emulator(load_weights(folder / EMULATOR), len(heads["mixture.weight"]), float(heads["temperature"]))
    emulator.heads.load_state_dict(heads)
    return emulator


def load_coupled(folder: Path) -> Coupled:
    """The model of a committed ICoT-KD trial: ``student/``, ``emulator/`` and, beside them, the tokenizer."""
    return coupled(folder, folder, stage_tokenizer(folder))


def coupled(student: Path, emulator: Path, tokenizer: PreTrainedTokenizerBase) -> Coupled:
    """The student of one committed stage with the emulator of another."""
    before = len(added_before(tokenizer))
    return Coupled(load_student(student), load_emulator(emulator), tokenizer.eos_token_id, before)


def _read(network: PreTrainedModel, tokens_BS: Tensor) -> None:
    """Run the layers, not the vocabulary. Padding is on the right, where no token sees it."""
    network.base_model(input_ids=tokens_BS, attention_mask=torch.ones_like(tokens_BS), use_cache=False)


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
