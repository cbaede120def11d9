"""Looks at what a job refers to: the steps of one epoch of its data, the content of a local model's files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from orchestrator.config import Job, PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem
from orchestrator.tasks import make_task


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
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    states = [path.stat() for path in files]
    stamps = tuple((path, state.st_size, state.st_mtime_ns) for path, state in zip(files, states, strict=True))
    return {"name": folder.name, "sha256": _sha256(stamps)}


@lru_cache(maxsize=16)
def _sha256(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the hash of files given with their sizes and times: they are read again only when one has changed."""
    sha256 = hashlib.sha256()
    for path, *_ in stamps:
        sha256.update(path.read_bytes())
    return sha256.hexdigest()
