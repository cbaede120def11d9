"""A trial that leaves another one at a committed stage: the rest of its chain, with other fields from there on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from itertools import dropwhile

from orchestrator.config import SEARCHABLE, Job
from orchestrator.errors import InputError, Problem
from orchestrator.identity import digest
from orchestrator.method.schedule import Removal
from orchestrator.method.stage import StageSpec
from orchestrator.plan import grid
from orchestrator.plan.content import Content
from orchestrator.plan.grid import Settings
from orchestrator.plan.plan import STAGES_OF, Plan, PlannedStage, Trial, common_identity, configured_jobs, keyed


def fork_plan(trial: Trial, after: PlannedStage, changes: Settings, name: str | None) -> Plan:
    """Return the plan of a fork: the trial's chain up to ``after``, then the rest anew with ``changes``.

    While the schedule is unchanged the remaining stages keep their steps. A changed schedule starts again with
    what is left: its next removal comes at once, as it would have, and pretraining is over. Raises ``InputError``.
    """
    allowed = [field for field in SEARCHABLE if not field.startswith("model.")]
    if wrong := [field for field, _ in changes if field not in allowed]:
        raise InputError(*(_unknown(field, allowed) for field in wrong))
    total = after.spec.total_tokens
    name = name or f"{trial.job.name[:40]}-fork-{digest([after.key, changes])[:8]}"
    job = grid.applied(trial.job.model_copy(update={"name": name}), changes, "--set")
    content = Content.of(job)
    configured_jobs(job, total, content=content)  # raises what is wrong with the changed job
    rest = _rest(trial, after, job, content.epoch_steps(job))
    if not rest:
        found = "is the last stage of its chain"
        raise InputError(Problem("FRK003", trial.stage_words(after), found, "name an earlier stage"))
    stages = keyed(rest, common_identity(job, content), job, trial.stages[: after.index + 1])
    chain = (*trial.stages[: after.index + 1], *stages)
    return chain_plan(job, total, chain, content)


def chain_plan(job: Job, total_tokens: int, chain: Sequence[PlannedStage], content: Content | None) -> Plan:
    """Return the plan of a job that is one given chain."""
    method, seed = job.methods[0], job.seeds[0]
    trial = Trial(f"{method}-seed{seed}", method, seed, tuple(chain), job)
    return Plan(job, total_tokens, (trial,), content=content)


def _unknown(field: str, allowed: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(field, allowed, 1)
    fix = f'did you mean "{near[0]}"?' if near else "name a field of schedule or training, as training.learning_rate"
    return Problem("FRK006", field, "not a field that a fork changes", fix)


def _rest(trial: Trial, after: PlannedStage, job: Job, epoch_steps: int) -> list[StageSpec]:
    """Return the stages after ``after``, as ``job`` would have them."""
    if job.schedule == trial.job.schedule:
        return [stage.spec for stage in trial.stages[after.index + 1 :]]
    if trial.method != "stepwise":
        found = "belongs to a baseline, which has no schedule of its own"
        raise InputError(Problem("FRK002", trial.stage_words(after), found, "change fields of training only"))
    begin, removed, total = after.spec.first_step + after.spec.steps, after.spec.removed_to, after.spec.total_tokens
    beyond = job.schedule.remove_all_beyond
    schedule = job.schedule.model_copy(
        update={
            "pretrain_steps": None,
            "pretrain_epochs": None,
            "remove_all_beyond": beyond and max(1, beyond - removed),
        }
    )
    specs = list(STAGES_OF["stepwise"](schedule, after.spec.seed, total - removed, epoch_steps))
    if removed < total:
        specs = list(dropwhile(lambda spec: not spec.removals, specs))
    else:
        done = sum(stage.spec.removed_from == total for stage in trial.stages[: after.index + 1])
        specs = specs[len(specs) - max(0, job.schedule.consolidation_stages - done) :]
    return [_moved(spec, begin - specs[0].first_step, removed, total) for spec in specs]


def _moved(spec: StageSpec, steps: int, removed: int, total: int) -> StageSpec:
    """Return a stage of the chain over what is left, in its place in the whole chain."""
    return replace(
        spec,
        first_step=spec.first_step + steps,
        removed_from=spec.removed_from + removed,
        removals=tuple(Removal(removal.step, removal.removed_tokens + removed) for removal in spec.removals),
        total_tokens=total,
    )
