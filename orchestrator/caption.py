"""What a stage of a job is and how it is measured, in sentences: what papers and code often leave in the dark."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.config import Job

OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon for the blocks' matrices, AdamW for the rest"}


def caption(job: Job) -> Iterator[str]:
    """For the report's figure and MLflow's note. Only Stepwise Internalization removes anything."""
    if "stepwise" not in job.methods:
        return
    searched = job.search.space if job.search else {}
    if "schedule.type" not in searched:
        yield from _schedule(job.schedule.type)
    if "training.reset_optimizer" not in searched:
        optimizer = "searched" if "training.optimizer" in searched else OPTIMIZERS[job.training.optimizer]
        fate = "rebuilt" if job.training.reset_optimizer else "kept"
        yield f"The optimizer ({optimizer}) is {fate} at every removal."
    smoothing = "searched" if "schedule.smoothing_lambda" in searched else f"{job.schedule.smoothing_lambda:g}"
    yield f"Smoothing offsets (λ = {smoothing}) are drawn per example; validation uses offset 0."


def _schedule(kind: str) -> Iterator[str]:
    """Where removals lie in a stage."""
    if kind == "reference":
        yield "A stage of the reference schedule is one epoch; a removal can fall anywhere in it."
    else:
        yield f"A stage boundary of the {kind} schedule lies just before a removal."
    when = "each as soon as the model has recovered, evenly at the latest" if kind == "adaptive" else "evenly"
    yield f"Inside a stage tokens are removed one by one, {when}."
