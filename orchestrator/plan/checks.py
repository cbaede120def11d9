"""Finds what is wrong with a job only in the light of its task."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.config import Job
from orchestrator.errors import Problem
from orchestrator.method.icot_kd import parts
from orchestrator.plan.content import Content


def _not_for_icot_kd(job: Job) -> Iterator[Problem]:
    """Yield the fields that taught parts do not know: they read whole examples in one pass, through own networks."""
    fields = {
        "max_steps": job.max_steps,
        "model.lora_rank": getattr(job.model, "lora_rank", None),
        "training.max_train_tokens": job.training.max_train_tokens,
        "resources.micro_batch": job.resources.micro_batch,
        "resources.micro_batch_tokens": job.resources.micro_batch_tokens,
        "resources.gradient_checkpointing": job.resources.gradient_checkpointing,
        "resources.shard": job.resources.shard,
    }
    for name, value in fields.items():
        if value:
            yield Problem("CFG035", name, "does not go with icot_kd", "remove it, or icot_kd from methods")


def job_problems(job: Job, total: int, estimated: bool, content: Content) -> Iterator[Problem]:
    """Yield what is wrong with a job whose longest CoT has ``total`` tokens. An ``estimated`` total refuses nothing."""
    schedule, epoch_steps = job.schedule, content.epoch_steps(job)
    train, validation = content.train_examples, content.validation_examples
    stage_steps = schedule.stage_steps or round(epoch_steps * (schedule.stage_epochs or 1))
    reasoning = [method for method in job.methods if method != "no_cot"]
    if not content.cot_symbols and reasoning:
        found = f"no example has a CoT, and {', '.join(reasoning)} cannot do without"
        fix = 'give methods = ["no_cot"], or say where the CoT is (task.cot_column, of gsm8k task.cot)'
        yield Problem("CFG038", "methods", found, fix)
    elif content.cot_symbols and not estimated and schedule.tokens_per_stage > total:
        found = f"{schedule.tokens_per_stage:g} exceeds the longest CoT ({total} tokens)"
        yield Problem("CFG015", "schedule.tokens_per_stage", found, f"give at most {total}")
    if schedule.type != "reference" and schedule.tokens_per_stage > stage_steps:
        found = f"{schedule.tokens_per_stage:g} tokens in {stage_steps} steps is more than one a step"
        yield Problem("CFG016", "schedule.tokens_per_stage", found, "lower it or lengthen the stage")
    if job.training.batch_size > train:
        found = f"{job.training.batch_size} exceeds the {train:,} training examples"
        yield Problem("CFG023", "training.batch_size", found, "lower it")
    if job.training.batch_size % job.resources.workers:
        found = f"{job.training.batch_size} examples do not divide over {job.resources.workers} workers"
        yield Problem("CFG039", "training.batch_size", found, "make it a multiple of resources.workers")
    if job.training.optimizer == "muon" and job.resources.shard:
        found = "muon makes whole matrices orthogonal, and shard gives each worker a share of one"
        yield Problem("CFG037", "training.optimizer", found, 'set it to "adamw" or remove resources.shard')
    if (job.evaluation.examples or 0) > validation:
        found = f"{job.evaluation.examples:,} exceeds the {validation:,} validation examples"
        yield Problem("CFG023", "evaluation.examples", found, "lower it")
    if "icot_kd" in job.methods:
        yield from _not_for_icot_kd(job)
        teacher = parts.teacher_stages(job.icot_kd, schedule, 0, total, epoch_steps)
        longest = sum(spec.steps for spec in teacher)
        wanted = job.icot_kd.teacher_epochs
        if not estimated and longest < round(wanted * epoch_steps):
            found = f"{wanted:g} exceeds the {longest / epoch_steps:.2f} epochs of this job's Explicit CoT"
            yield Problem("CFG034", "icot_kd.teacher_epochs", found, "lower it or give the schedule more steps")
