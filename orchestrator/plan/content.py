"""Looks at what a job refers to: its examples, and the content of a local model's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import Job, PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem
from orchestrator.identity import non_default
from orchestrator.plan.fingerprint import fingerprint
from orchestrator.tasks import make_task

TOKENIZER_TEXTS = {"merges.txt", "vocab.txt", "dict.txt"}
TOKENIZER_FORMATS = {".model", ".spm", ".codes", ".bpe", ".tiktoken", ".tokenizer"}
"""Names and endings of the files that transformers makes a tokenizer of where there is no ``tokenizer.json``."""


@dataclass(frozen=True)
class Content:
    """What was read of a job's data and model: enough to plan its stages again where neither is at hand."""

    task: dict[str, Any]
    """The task's identity."""
    model: dict[str, Any]
    """What a local model's files say; nothing of another model."""
    train_examples: int
    validation_examples: int
    cot_symbols: int
    """Of the longest CoT that can be removed; 0 where no example has one."""
    example_symbols: int
    """Of the longest example, with ``####``."""

    @classmethod
    def of(cls, job: Job) -> Content:
        """Read the data and the model of a job. Raises ``InputError``."""
        task = make_task(job.task)
        sizes = task.size("train"), task.size("validation")
        return cls(task.identity, model_content(job.model), *sizes, task.cot_symbols, task.example_symbols)

    def epoch_steps(self, job: Job) -> int:
        """Return the optimizer steps of one pass over the training data."""
        return -(-self.train_examples // job.training.batch_size)

    def document(self, job: Job) -> dict[str, Any]:
        """Return the identity of the examples and of the model, before a search sets anything."""
        return {"task": self.task, "model": non_default(job.model) | self.model}


def model_content(model: ScratchModel | PretrainedModel) -> dict[str, str]:
    """Return the identity of a local model's files, wherever they lie; nothing for other models.

    Raises ``InputError`` for a path without a folder.
    """
    if not isinstance(model, PretrainedModel) or not (model.is_folder or model.name.startswith(".")):
        return {}
    if not Path(model.name).is_dir():
        found = f"no folder {model.name} (from {Path.cwd()})"
        raise InputError(Problem("MOD015", "model.name", found, "name a model's folder or a Hugging Face id"))
    return {"name": Path(model.name).name, "sha256": fingerprint(_deciding_files(Path(model.name)))}


def _deciding_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that say what its weights, tokens and chat template are.

    Beside a ``tokenizer.json`` nothing reads what it was made from, nor weights in another format than safetensors.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    whole = any(path.name == "tokenizer.json" for path in files)

    def decides(path: Path) -> bool:
        of_tokenizer = path.name in TOKENIZER_TEXTS or path.suffix in TOKENIZER_FORMATS
        return path.suffix in (".json", ".safetensors", ".jinja") or (of_tokenizer and not whole)

    return list(filter(decides, files))
