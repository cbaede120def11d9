"""The product's side: its own data, model and training loop at a given size, without Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from orchestrator.config import Job, MultiplicationTask, ScratchModel, Training
from orchestrator.method.models.model import initial_model, set_attention
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.stage import StageSpec
from orchestrator.method.train import StageRun, train_stage
from orchestrator.ray.local import WORKER_ENVIRONMENT
from orchestrator.store import StageStore
from orchestrator.trials.data import JobData, prepare_data

ALLOCATOR = {name: value for name, value in WORKER_ENVIRONMENT.items() if name.startswith("MALLOC_")}
"""What the product sets for its training workers; glibc reads it when a process starts."""

CPU = torch.device("cpu")
SMOOTHING = 4.0
"""λ of the paper's runs."""


@dataclass(frozen=True)
class Size:
    """A task, a model and a batch. ``gpt2``: GPT-2 Small's shape and vocabulary with random weights."""

    digits: tuple[int, int]
    batch: int
    gpt2: bool = False
    train_examples: int = 20_000

    def __str__(self) -> str:
        model = "12 layers x 768 (GPT-2 Small)" if self.gpt2 else "2 layers x 128"
        return f"{self.digits[0]}x{self.digits[1]}, {model}, batch {self.batch}"

    @property
    def job(self) -> Job:
        return Job(
            name="benchmark",
            task=MultiplicationTask(digits=self.digits, train_examples=self.train_examples),
            model=ScratchModel(layers=2, width=128, heads=4),
            training=Training(batch_size=self.batch),
        )

    def data(self, store: Path) -> JobData:
        return prepare_data(self.job, StageStore(store))

    def model(self, data: JobData) -> PreTrainedModel:
        """Random weights; GPT-2's tokens are the task's own, which changes no shape."""
        if not self.gpt2:
            return initial_model(self.job.model, data.tokenizer, data.longest, seed=0)
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config())


class Ours:
    """``train_stage`` with the job's settings, some steps at a time. Called: seconds of so many steps."""

    def __init__(self, size: Size, store: Path) -> None:
        self.size, self.data, self.training = size, size.data(store), size.job.training
        self.model = size.model(self.data)
        set_attention(self.model, CPU, self.training)
        self.optimizer = Optimizer(self.model, self.training)
        self.steps_done = 0

    def __call__(self, removed: int, steps: int, threads: int) -> float:
        torch.set_num_threads(threads)
        spec = StageSpec(
            seed=0,
            first_step=self.steps_done,
            steps=steps,
            removed_from=removed,
            removals=(),
            total_tokens=self.data.total_tokens,
            smoothing_lambda=SMOOTHING,
        )
        self.steps_done += steps
        return train_stage(StageRun(self.model, self.optimizer, spec, self.data.train, self.training, None)).seconds


def ours_in_group(size: Size, store: Path, rank: int, world: int, meeting_point: Path) -> Ours:
    """One of several data-parallel workers, joined through a file."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=world)
    return Ours(size, store)
