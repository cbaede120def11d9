"""What a stage of a job is and how it is measured, in sentences: what papers and code often leave in the dark."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.config import Job


def caption(job: Job) -> Iterator[str]:
    """For the report's figure and MLflow's note."""
    if job.schedule.type == "reference":
        yield "A stage of the reference schedule is one epoch; a removal can fall anywhere in it."
    else:
        yield f"A stage boundary of the {job.schedule.type} schedule lies just before a removal."
    when = (
        "each as soon as the model has recovered, evenly at the latest" if job.schedule.type == "adaptive" else "evenly"
    )
    yield f"Inside a stage tokens are removed one by one, {when}."
    searched = job.search.space if job.search else {}
    if "training.reset_optimizer" not in searched:
        yield f"AdamW is {'rebuilt' if job.training.reset_optimizer else 'kept'} at every removal."
    smoothing = "searched" if "schedule.smoothing_lambda" in searched else f"{job.schedule.smoothing_lambda:g}"
    yield f"Smoothing offsets (λ = {smoothing}) are drawn per example; validation uses offset 0."
