"""Where a stage is between two steps: with weights and optimizer, all that its next step depends on."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from orchestrator.config import Training
from orchestrator.method.stage import LossPoint, Record, RemovalPoint, StageSpec
from orchestrator.method.tokens import TokenTable, batch_rows
from orchestrator.stability import Block


class Moment(Record):
    """A stage after ``steps`` of its optimizer steps; without arguments, its beginning."""

    steps: int = 0
    removals: int = 0
    """The number of the stage's removals that have happened."""
    recovered: bool = True
    """A flag for adaptive stages: the next token may go."""
    after_removal: tuple[RemovalPoint, ...] = ()
    train_loss: tuple[LossPoint, ...] = ()
    blocks: tuple[Block, ...] = ()
    losses: str = ""
    gradient_norms: str = ""
    """The norms of the steps since the last block, ``packed`` like ``losses``: they need not be finite."""
    seconds: float = 0.0
    consumed: str = ""
    """The digest of the examples seen so far, in order: ``Consumed.digest``."""
    generators: tuple[tuple[str, ...], ...] = ()
    """The states of torch's generators (dropout) on every worker, in base64."""


@dataclass
class Consumed:
    """A running SHA-256 of the rows of every batch: the position in the data, beyond doubt."""

    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @classmethod
    def after(cls, steps: int, spec: StageSpec, table: TokenTable, training: Training) -> Consumed:
        """As it must be after so many steps of a stage."""
        consumed = cls()
        for rows in batch_rows(len(table), training.batch_size, spec.seed, spec.first_step, steps):
            consumed.add(rows.tobytes())
        return consumed

    def add(self, rows: bytes) -> None:
        self._hash.update(rows)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def generators(device: torch.device) -> tuple[tuple[str, ...], ...]:
    """The generators of all workers. Collective."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    own = tuple(packed(state) for state in states)
    if not dist.is_initialized():
        return (own,)
    every: list[tuple[str, ...]] = [()] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return tuple(every)


def restore_generators(states: tuple[str, ...], device: torch.device) -> None:
    """This worker's generators, as ``generators`` found them."""
    cpu, *gpu = (unpacked(state, torch.uint8) for state in states)
    torch.set_rng_state(cpu)
    for state in gpu:
        torch.cuda.set_rng_state(state, device)


def packed(tensor: torch.Tensor) -> str:
    """The bytes of a tensor of the CPU in base64."""
    return base64.b64encode(tensor.numpy().tobytes()).decode()


def unpacked(text: str, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=dtype) if text else torch.empty(0, dtype=dtype)
