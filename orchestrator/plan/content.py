"""What a job refers to, looked at: the steps of one epoch of its data, the content of a local model's files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from orchestrator.config import Job, PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem
from orchestrator.tasks import make_task


def epoch_steps(job: Job) -> int:
    """Optimizer steps of one pass over the training data."""
    return -(-make_task(job.task).size("train") // job.training.batch_size)


def model_content(model: ScratchModel | PretrainedModel) -> dict[str, str]:
    """A local model is what its files say, wherever they lie. Raises ``InputError`` for a path without a folder."""
    if not isinstance(model, PretrainedModel):
        return {}
    if not Path(model.name).is_dir():
        if model.name.startswith((".", "/", "~")):
            found = f"no folder {model.name} (from {Path.cwd()})"
            raise InputError(Problem("MOD015", "model.name", found, "name a model's folder or a Hugging Face id"))
        return {}
    files = [path for path in sorted(Path(model.name).iterdir()) if path.suffix in (".json", ".safetensors")]
    states = [path.stat() for path in files]
    stamps = tuple((path, state.st_size, state.st_mtime_ns) for path, state in zip(files, states, strict=True))
    return {"name": Path(model.name).name, "sha256": _sha256(stamps)}


@lru_cache(maxsize=16)
def _sha256(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Of files with their sizes and times: read once, and again when one has changed."""
    sha256 = hashlib.sha256()
    for path, *_ in stamps:
        sha256.update(path.read_bytes())
    return sha256.hexdigest()
