"""Looks at what a job refers to: the steps of one epoch of its data, the content of a local model's files."""

from __future__ import annotations

from pathlib import Path

from orchestrator.config import Job, PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem
from orchestrator.plan.fingerprint import fingerprint
from orchestrator.tasks import make_task

TOKENIZER_TEXTS = {"merges.txt", "vocab.txt", "dict.txt"}
TOKENIZER_FORMATS = {".model", ".spm", ".codes", ".bpe", ".tiktoken", ".tokenizer"}
"""Names and endings of the files that transformers makes a tokenizer of where there is no ``tokenizer.json``."""


def epoch_steps(job: Job) -> int:
    """Return the optimizer steps of one pass over the training data."""
    return -(-make_task(job.task).size("train") // job.training.batch_size)


def model_folder(model: ScratchModel | PretrainedModel) -> Path | None:
    """Return the folder of a local model; None for others. Raises ``InputError`` for a path without a folder."""
    if not isinstance(model, PretrainedModel):
        return None
    if Path(model.name).is_dir():
        return Path(model.name)
    if model.name.startswith((".", "/", "~")):
        found = f"no folder {model.name} (from {Path.cwd()})"
        raise InputError(Problem("MOD015", "model.name", found, "name a model's folder or a Hugging Face id"))
    return None


def model_content(model: ScratchModel | PretrainedModel) -> dict[str, str]:
    """Return the identity of a local model's files, wherever they lie; nothing for other models.

    Raises ``InputError`` for a path without a folder.
    """
    folder = model_folder(model)
    if folder is None:
        return {}
    return {"name": folder.name, "sha256": fingerprint(_deciding_files(folder))}


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
