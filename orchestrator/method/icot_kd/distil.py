"""The parts of ICoT-KD as stages: where each begins, what its steps learn, how it is measured.

Mind-reading student and thought emulator learn from a frozen teacher that reads the whole example. The two
coupled learn from the answer alone, and are trained and measured as No CoT is.

Shapes: B examples, L layers, H width, K tokens without the CoT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.config import Training
from orchestrator.method.evaluate import Accuracy, Removed, SpotCheck
from orchestrator.method.icot_kd.thoughts import Emulator, Part, Student, coupled, teacher_thoughts
from orchestrator.method.models.model import autocast, load_weights
from orchestrator.method.removal import IGNORED, Batch, CutBatch, cut
from orchestrator.method.stage import StageSpec
from orchestrator.method.tokens import TokenTable
from orchestrator.method.train import Step, Terms, own_rows, ranked


class Taught(Part):
    """A part that learns from the teacher. Called with whole examples, it returns its summed loss, and of each
    example whether its answer is right (B).
    """

    def __init__(self, teacher: PreTrainedModel) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def units(self, batch: Batch) -> int:
        """Return how many tokens, or examples, the summed loss of a batch is a sum over."""
        raise NotImplementedError


class MindReading(Taught):
    """The student answers from the teacher's thoughts."""

    def __init__(self, teacher: PreTrainedModel, student: Student) -> None:
        super().__init__(teacher)
        self.student = student
        self.train()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        asked = without_cot(batch)
        first = int(batch.cot_start_B.min())
        labels_BK = asked.labels_BK[:, first:]
        logits = self.student(
            teacher_thoughts(self.teacher, batch),
            batch.cot_start_B - 1,
            input_ids=asked.tokens_BK[:, :-1],
            attention_mask=asked.attention_mask[:, :-1],
            logits_to_keep=labels_BK.shape[1],
            use_cache=False,
        ).logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss, ((logits.argmax(-1) == labels_BK) | (labels_BK == IGNORED)).all(1)

    def units(self, batch: Batch) -> int:
        return int((without_cot(batch).labels_BK != IGNORED).sum())


class Emulation(Taught):
    """The emulator predicts the teacher's thoughts: half their squared distance, summed over layers and width."""

    def __init__(self, teacher: PreTrainedModel, emulator: Emulator) -> None:
        super().__init__(teacher)
        self.emulator = emulator
        self.train()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        thoughts_BLH = self.emulator(batch.tokens_BL, batch.cot_start_B - 1)
        loss = (thoughts_BLH - teacher_thoughts(self.teacher, batch)).square().sum() / 2
        return loss, torch.zeros_like(batch.lengths_B, dtype=torch.bool)

    def units(self, batch: Batch) -> int:
        return len(batch.lengths_B)


def without_cot(batch: Batch) -> CutBatch:
    """The examples as No CoT has them."""
    return cut(batch, batch.cot_end_B - batch.cot_start_B)


def taught_loss(model: torch.nn.Module, table: TokenTable, rows: np.ndarray, at: Step, training: Training) -> Terms:
    """The objective of a taught part: one term."""
    part = model.module if isinstance(model, DistributedDataParallel) else model
    batch = table.batch(rows)

    def term() -> Tensor:
        with autocast(part.device, training):
            summed, _ = model(batch.rows(own_rows(len(rows))).to(part.device))
        return summed * (ranked()[1] / part.units(batch))

    return [term]


def begin_part(
    spec: StageSpec, parents: Sequence[Path], initial: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerBase
) -> Part:
    """A part before its first step. ``parents``: the folders of the stages it needs.

    Student and emulator begin with new heads and the job's ``initial`` weights, or the teacher's.
    """
    if spec.kind == "coupling":
        return coupled(*parents, tokenizer)
    teacher = load_weights(parents[0])
    network = load_weights(parents[0]) if spec.as_teacher else initial()
    torch.manual_seed(spec.seed)
    if spec.kind == "mind_reading":
        return MindReading(teacher, Student(network))
    return Emulation(teacher, Emulator(network, spec.mixture_size, spec.mixture_temperature))


class TaughtEvaluator:
    """Measures a taught part on the first validation examples of a job."""

    def __init__(self, table: TokenTable, size: int, batch_size: int) -> None:
        self.table, self.size, self.batch_size = table, size, batch_size

    @torch.inference_mode()
    def accuracy(self, part: Taught, removed: Removed, limit: int | None = None) -> Accuracy:
        """Exact match given the teacher's thoughts, by the teacher-forced arg-max; and the loss per unit.

        ``removed`` is what an ``Evaluator`` is told; a taught part always has the whole CoT removed.
        """
        size = min(limit or self.size, self.size)
        right, loss, units = [], 0.0, 0
        for rows in np.array_split(np.arange(size), -(-size // self.batch_size)):
            batch = self.table.batch(rows).to(part.device)
            summed, right_B = part(batch)
            loss, units = loss + float(summed), units + part.units(batch)
            right += right_B.tolist()
        return Accuracy(tuple(right), loss / units)

    def spot_check(self, part: Taught, removed: Removed, examples: int) -> SpotCheck:
        """As ``accuracy``, so the loss is over all that is left to write, not the answer alone."""
        accuracy = self.accuracy(part, removed, examples)
        return SpotCheck(accuracy.loss, accuracy.exact_match)
