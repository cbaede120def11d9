"""From a job to its trials and their stages: what will be done, before anything is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from orchestrator.config import Job, Method, PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem
from orchestrator.identity import METHOD_VERSION, digest, non_default
from orchestrator.method.icot_kd import parts
from orchestrator.method.schedule import Removal
from orchestrator.method.stage import NEEDS, StageSpec, first_steps
from orchestrator.method.stepwise import explicit_cot_stages, no_cot_stages, stepwise_stages
from orchestrator.plan import grid
from orchestrator.plan.checks import job_problems
from orchestrator.plan.content import Content
from orchestrator.plan.grid import Settings
from orchestrator.stability import Budget, Pace, Rule
from orchestrator.tasks import make_task

STAGES_OF = {"stepwise": stepwise_stages, "explicit_cot": explicit_cot_stages, "no_cot": no_cot_stages}


@dataclass(frozen=True)
class PlannedStage:
    """A stage in its place: ``key`` says what work it is, ``parents`` are the keys of the stages it needs."""

    index: int
    key: str
    parents: tuple[str, ...]
    spec: StageSpec
    identity: dict[str, Any]
    """The document whose hash is the key."""

    @property
    def parent(self) -> str | None:
        """The stage whose training this one continues, or the first of several that it needs."""
        return self.parents[0] if self.parents else None

    def attempted(self, before: Sequence[PlannedStage], seed: int, pace: Pace, *, restart: bool) -> PlannedStage:
        """The stage as it is tried after ``before`` of its chain. With what was planned: itself."""
        parents = _needed(self.spec, before)
        first_step = max((parent.spec.last_step for parent in parents), default=0)
        spec = self.spec.attempted(first_step, seed, pace, restart=restart)
        if spec == self.spec and tuple(parent.key for parent in parents) == self.parents:
            return self
        return _placed(self.index, spec, parents, self.identity)


@dataclass(frozen=True)
class Trial:
    """One point of the job's search: an ordered chain of stages."""

    name: str
    method: Method
    seed: int
    stages: tuple[PlannedStage, ...]
    job: Job
    """The job that this trial alone is: its method, seed and settings, and no search."""
    settings: Settings = ()
    """What the search set, as far as it changes this trial."""

    def stage_words(self, stage: PlannedStage) -> str:
        """``stage 12 of quickstart:stepwise-seed0 (26b16744)``."""
        return f"stage {stage.index} of {self.job.name}:{self.name} ({stage.key[:8]})"

    def rule(self, spec: StageSpec) -> Rule:
        """What a stage of this trial is judged by. Baselines, and what they may share, only have to stay finite."""
        if self.method != "stepwise" or spec.removed_to == 0:
            return "hard"
        return "all" if self.job.stability.restarts else "hard"

    @cached_property
    def budget(self) -> Budget:
        """What restarts may cost. Baselines are never restarted."""
        stability = self.job.stability
        restarts = stability.max_restarts_per_stage if self.method == "stepwise" and stability.restarts else 0
        nominal = tuple(stage.spec.steps for stage in self.stages)
        return Budget(self.seed, nominal, attempts_per_stage=restarts, run_compute=stability.max_compute)

    @property
    def steps(self) -> int:
        return sum(stage.spec.steps for stage in self.stages)

    @property
    def cot_token_steps(self) -> int:
        """CoT tokens per example that are still written, summed over the steps: what makes trials unequal."""
        return sum((stage.spec.total_tokens - stage.spec.removed_to) * stage.spec.steps for stage in self.stages)


@dataclass(frozen=True)
class Plan:
    """All trials of a job. Stages with equal keys are the same work and run once."""

    job: Job
    total_tokens: int
    trials: tuple[Trial, ...]
    to_propose: int = 0
    """Configurations that Optuna has not proposed yet."""
    estimated: bool = False
    """Whether ``total_tokens`` is a guess, without a tokenizer; a run counts, and has its last stages by that."""
    content: Content | None = None
    """What its stages are made of; of a fork that was saved by an older version, not known."""

    @property
    def groups(self) -> dict[Settings, tuple[Trial, ...]]:
        """The stepwise trials by configuration: the seeds that are judged together."""
        groups: dict[Settings, tuple[Trial, ...]] = {}
        for trial in self.trials:
            if trial.method == "stepwise":
                groups[trial.settings] = (*groups.get(trial.settings, ()), trial)
        return groups

    @property
    def shared(self) -> set[str]:
        """Keys of stages that more than one trial takes."""
        counts = Counter(stage.key for trial in self.trials for stage in trial.stages)
        return {key for key, count in counts.items() if count > 1}

    @property
    def unique_stages(self) -> dict[str, PlannedStage]:
        return {stage.key: stage for trial in self.trials for stage in trial.stages}


def estimated_total_tokens(job: Job) -> int:
    """CoT tokens that can be removed, without a tokenizer: of the longest CoT, whose examples lose the last token.

    Exact for models from scratch, and for multiplication with GPT-2's tokenizer.
    """
    task = make_task(job.task)
    return task.cot_pieces if isinstance(job.model, PretrainedModel) else task.cot_symbols


def build_plan(
    job: Job,
    total_tokens: int | None = None,
    proposed: Sequence[Settings] = (),
    content: Content | None = None,
) -> Plan:
    """The plan of a job. ``total_tokens`` as measured on the tokens, else estimated.

    ``proposed``: what Optuna has proposed so far. A chain that two configurations share is one trial. ``content``: of
    its data and model as they were read before; without it they are read.
    """
    content = content or Content.of(job)
    total = estimated_total_tokens(job) if total_tokens is None else total_tokens
    estimated = total_tokens is None and isinstance(job.model, PretrainedModel) and job.task.type != "multiplication"
    known: Sequence[Settings] = [()]
    to_propose = 0
    if job.search:
        known = grid.configurations(job.search) or proposed
        to_propose = (job.search.configurations or 0) - len(proposed) if job.search.type == "optuna" else 0
        if to_propose:
            _variants(job, grid.extremes(job.search), total, estimated, content)
    trials: dict[tuple[Method, str], Trial] = {}
    for settings, variant in _variants(job, known, total, estimated, content).items():
        common = common_identity(variant, content)
        specs = {method: _specs(variant, method, total, content.epoch_steps(variant)) for method in job.methods}
        for seed in job.seeds:
            for method in job.methods:
                trial = _trial(variant, method, seed, settings, specs[method], common)
                trials.setdefault((method, trial.stages[-1].key), trial)
    return Plan(job, total, tuple(trials.values()), max(0, to_propose), estimated, content)


def common_identity(job: Job, content: Content) -> dict[str, Any]:
    """What all stages of a trial have in common and what changes their numbers."""
    return {
        "method_version": METHOD_VERSION,
        **content.document(job),
        "training": non_default(job.training),
        "evaluation": job.evaluation.model_dump(include={"examples"}, exclude_defaults=True),
    }


def keyed(
    specs: Iterable[StageSpec], common: dict[str, Any], job: Job, before: Sequence[PlannedStage] = ()
) -> tuple[PlannedStage, ...]:
    """Stages in their places: a chain of ``job``'s trial, or what follows ``before`` in one."""
    stages = list(before)
    for index, spec in enumerate(specs, len(before)):
        stages.append(_placed(index, spec, _needed(spec, stages), {**common, **_judging(job, spec)}))
    return tuple(stages[len(before) :])


def _needed(spec: StageSpec, before: Sequence[PlannedStage]) -> list[PlannedStage]:
    """The parents of a stage that comes after ``before`` in its chain."""
    return [parent for kind in NEEDS[spec.kind] for parent in [s for s in before if s.spec.kind == kind][-1:]]


def _placed(index: int, spec: StageSpec, parents: Sequence[PlannedStage], identity: dict[str, Any]) -> PlannedStage:
    """A stage by its parents. In its identity one parent is a key, as it always was; several are a list."""
    keys = [parent.key for parent in parents]
    above = keys if len(keys) > 1 else next(iter(keys), None)
    identity = {**identity, "parent": above, "stage": spec.document()}
    return PlannedStage(index, digest(identity), tuple(keys), spec, identity)


def read_chain(identities: Iterable[dict[str, Any]]) -> tuple[PlannedStage, ...]:
    """The stages whose identities these are, as they were planned."""
    return tuple(
        PlannedStage(index, digest(identity), _keys(identity["parent"]), _spec(identity["stage"]), identity)
        for index, identity in enumerate(identities)
    )


def _keys(parent: str | list[str] | None) -> tuple[str, ...]:
    return tuple(parent) if isinstance(parent, list) else (parent,) if parent else ()


def _spec(document: dict[str, Any]) -> StageSpec:
    removals = tuple(Removal(step, removed) for step, removed in document["removals"])
    return StageSpec(**{**document, "removals": removals})


def _judging(job: Job, spec: StageSpec) -> dict[str, Any]:
    """What a stage's record and verdict depend on beside its numbers, where it is not default."""
    fields, judged = {"probe_examples"}, job.methods == ("stepwise",)
    if judged and spec.removed_to:
        fields |= {"restarts", "min_exact_match"}
    judging = job.stability.model_dump(include=fields, exclude_defaults=True)
    if judged and spec.consolidation and not job.schedule.cooldown_stages:
        judging["min_exact_match"] = job.stability.min_exact_match  # asked of it; with a cooldown: of what follows
    return {"stability": judging} if judging else {}


def _variants(
    job: Job, known: Iterable[Settings], total: int, estimated: bool, content: Content
) -> dict[Settings, Job]:
    """The job of every configuration. Raises ``InputError`` with every problem of any of them, once."""
    variants: dict[Settings, Job] = {}
    problems: dict[Problem, None] = {}
    for settings in known:
        try:
            variants[settings] = grid.applied(job, settings) if settings else job
            problems |= dict.fromkeys(job_problems(variants[settings], total, estimated, content))
        except InputError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise InputError(*problems)
    return variants


def _trial(
    job: Job, method: Method, seed: int, settings: Settings, specs: Iterable[StageSpec], common: dict[str, Any]
) -> Trial:
    own = tuple(s for s in settings if method == "stepwise" or s[0] not in grid.STEPWISE_ONLY)
    alone = job.model_copy(update={"methods": (method,), "seeds": (seed,)})
    return Trial(
        name=f"{method}-{grid.path_name(own)}seed{seed}",
        method=method,
        seed=seed,
        stages=keyed([replace(spec, seed=seed) for spec in specs], common, alone),
        job=alone,
        settings=own,
    )


def _specs(job: Job, method: Method, total: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """The stages of every seed: they differ in nothing else."""
    if method == "icot_kd":
        scratch = isinstance(job.model, ScratchModel)
        return parts.stages(job.icot_kd, job.schedule, 0, total, epoch_steps, scratch=scratch)
    specs = STAGES_OF[method](job.schedule, 0, total, epoch_steps)
    return specs if job.max_steps is None else first_steps(specs, job.max_steps)
