"""Takes snapshots of a stage, which goes on from the latest one and ends with the same weights, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from orchestrator.config import Training
from orchestrator.errors import StoreError
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.resume import Consumed, Moment
from orchestrator.method.tokens import TokenTable
from orchestrator.method.workers import gathered, is_split, split_like, told
from orchestrator.plan import PlannedStage
from orchestrator.store import Snapshots, StageStore, number_versions, unwritten

LEAST_SECONDS = 20.0
"""The least seconds between two snapshots."""
SHARE = 0.01
"""The most of the time that goes into snapshots."""

_WEIGHT, _OPTIMIZER = "weight.", "optimizer."


def circumstances(model: PreTrainedModel) -> dict[str, str]:
    """Return what decides, beside the work itself, on the last bits of its numbers."""
    device, workers = model.device, str(dist.get_world_size() if dist.is_initialized() else 1)
    processor = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {
        **number_versions(),
        "device": f"{device.type} {processor}",
        "threads": str(torch.get_num_threads()),
        "workers": f"{workers}, weights split" if is_split(model) else workers,
    }


class Keeper:
    """Takes and restores the snapshots of one attempt. The first worker decides when, all take part."""

    def __init__(
        self,
        store: StageStore,
        stage: PlannedStage,
        model: PreTrainedModel,
        optimizer: Optimizer,
        drained: Callable[[], bool],
        *,
        first: bool,
    ) -> None:
        self._snapshots = Snapshots(store, stage, circumstances(model))
        self._stage, self._model, self._optimizer, self._first = stage, model, optimizer, first
        self._drained = drained
        self._last, self._cost = time.monotonic(), 0.0

    def restored(self, table: TokenTable, training: Training) -> Moment | None:
        """Put the latest snapshot into model and optimizer. None: the stage begins at its beginning."""
        found = told(self._usable(table, training) if self._first else None)
        if found is None:
            return None
        moment, path = found
        tensors = load_file(path)
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(split_like(tensors[_WEIGHT + name], parameter))
        self._optimizer.load(
            {name.removeprefix(_OPTIMIZER): value for name, value in tensors.items() if name.startswith(_OPTIMIZER)}
        )
        return moment

    def _usable(self, table: TokenTable, training: Training) -> tuple[Moment, Path] | None:
        """Return the latest snapshot, if it has seen the examples that its step must have seen. Else forget it."""
        if latest := self._snapshots.latest():
            record, path = latest
            with suppress(ValidationError):
                moment = Moment.model_validate(record)
                if Consumed.after(moment.steps, self._stage.spec, table, training).digest == moment.consumed:
                    return moment, path
        self.forget()
        return None

    def keep(self, now: Callable[[], Moment]) -> None:
        """Take a snapshot if it is time for one. ``now`` makes the record of where the stage is.

        Raises ``StoreError`` if it cannot be written, and ``NodeDrained`` after it if a node is drained.
        """
        why = told(self._why() if self._first else None)
        if why is None:
            return
        started, moment = time.monotonic(), now()
        tensors = {_WEIGHT + name: gathered(value.detach()) for name, value in self._trained()}
        tensors |= {_OPTIMIZER + name: value for name, value in self._optimizer.tensors().items()}
        if self._first:
            try:
                self._snapshots.save(moment.model_dump(mode="json"), lambda path: save_file(tensors, path))
            except (OSError, SafetensorError) as error:
                raise StoreError(unwritten(self._snapshots.folder, error)) from error
        self._last = time.monotonic()
        self._cost = self._last - started
        if why == "a node is drained":
            raise NodeDrained

    def _why(self) -> Literal["it is time", "a node is drained"] | None:
        if self._drained():
            return "a node is drained"
        elapsed = time.monotonic() - self._last
        return "it is time" if elapsed >= LEAST_SECONDS and elapsed * SHARE >= self._cost else None

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the weights that a stage changes: not LoRA's base model, nor a teacher."""
        return ((name, value) for name, value in self._model.named_parameters() if value.requires_grad)

    def forget(self) -> None:
        """Remove the snapshot, which is of no more use."""
        if self._first:
            self._snapshots.forget()


class NodeDrained(Exception):
    """A node of the trial is drained. The stage's place is kept in a snapshot."""
