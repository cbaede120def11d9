"""From a job to its trials and their stages, before anything is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
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
    """A stage in its place."""

    index: int
    key: str
    """The hash that says what work the stage is."""
    parents: tuple[str, ...]
    """The keys of the stages that it needs."""
    spec: StageSpec
    identity: dict[str, Any]
    """The document whose hash is the key."""

    @property
    def parent(self) -> str | None:
        """Return the stage whose training this one continues, or the first of several that it needs."""
        return self.parents[0] if self.parents else None

    def attempted(self, before: Sequence[PlannedStage], seed: int, pace: Pace, *, restart: bool) -> PlannedStage:
        """Return the stage as it is attempted after ``before`` of its chain. With what was planned: itself."""
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
    """The settings of the search that change this trial."""

    def stage_words(self, stage: PlannedStage) -> str:
        """Return ``stage 12 of quickstart:stepwise-seed0 (26b16744)``."""
        return f"stage {stage.index} of {self.job.name}:{self.name} ({stage.key[:8]})"

    def rule(self, spec: StageSpec) -> Rule:
        """Return the detectors that judge a stage. Baselines, and what they may share, only have to stay finite."""
        if self.method != "stepwise" or spec.removed_to == 0:
            return "hard"
        return "all" if self.job.stability.restarts else "hard"

    @cached_property
    def budget(self) -> Budget:
        """Return what restarts may cost. Baselines are never restarted."""
        stability = self.job.stability
        restarts = stability.max_restarts_per_stage if self.method == "stepwise" and stability.restarts else 0
        nominal = tuple(stage.spec.steps for stage in self.stages)
        return Budget(self.seed, nominal, attempts_per_stage=restarts, run_compute=stability.max_compute)

    @property
    def steps(self) -> int:
        """Return the optimizer steps of all its stages."""
        return sum(stage.spec.steps for stage in self.stages)

    @property
    def cot_token_steps(self) -> int:
        """Return the CoT tokens an example still has, summed over the steps: they make trials unequally long."""
        return sum((stage.spec.total_tokens - stage.spec.removed_to) * stage.spec.steps for stage in self.stages)


@dataclass(frozen=True)
class Plan:
    """All trials of a job. Stages with equal keys are the same work and run once."""

    job: Job
    total_tokens: int
    """The tokens of the longest CoT, which a stage can remove."""
    trials: tuple[Trial, ...]
    to_propose: int = 0
    """The number of configurations that Optuna has not proposed yet."""
    estimated: bool = False
    """Whether ``total_tokens`` is a guess, without a tokenizer; a run counts, and has its last stages by that."""
    content: Content | None = None
    """The data and the model its stages are made of. Not known of a fork that an older version saved."""

    @property
    def groups(self) -> dict[Settings, tuple[Trial, ...]]:
        """Return the stepwise trials by configuration: the seeds that are judged together."""
        groups: dict[Settings, tuple[Trial, ...]] = {}
        for trial in self.trials:
            if trial.method == "stepwise":
                groups[trial.settings] = (*groups.get(trial.settings, ()), trial)
        return groups

    @property
    def shared(self) -> set[str]:
        """Return the keys of stages that more than one trial takes."""
        counts = Counter(stage.key for trial in self.trials for stage in trial.stages)
        return {key for key, count in counts.items() if count > 1}

    @property
    def unique_stages(self) -> dict[str, PlannedStage]:
        """Return the stages by key, each once."""
        return {stage.key: stage for trial in self.trials for stage in trial.stages}


def build_plan(
    job: Job, total_tokens: int | None = None, proposed: Sequence[Settings] = (), content: Content | None = None
) -> Plan:
    """Return the plan of a job. A chain that two configurations share is one trial.

    ``total_tokens``: as measured on the tokens; None for an estimate. ``proposed``: the configurations that Optuna has
    proposed so far. ``content``: the job's data and model as they were read before; without it they are read.
    Raises ``InputError`` with everything that is wrong with the job.
    """
    content = content or Content.of(job)
    total = estimated_total_tokens(job) if total_tokens is None else total_tokens
    trials: dict[tuple[Method, str], Trial] = {}
    for settings, configured in configured_jobs(job, total_tokens, proposed, content).items():
        for trial in _trials(configured, settings, total, content):
            trials.setdefault((trial.method, trial.stages[-1].key), trial)
    return Plan(
        job=job,
        total_tokens=total,
        trials=tuple(trials.values()),
        to_propose=_to_propose(job, proposed),
        estimated=_is_guessed(job, total_tokens),
        content=content,
    )


def configured_jobs(
    job: Job, total_tokens: int | None = None, proposed: Sequence[Settings] = (), content: Content | None = None
) -> dict[Settings, Job]:
    """Return the job of every configuration that is known so far. This makes no plan, so it is quick.

    Arguments as in ``build_plan``. Raises ``InputError`` with every problem of any of them, and of any that Optuna may
    yet propose, once; or for a local model that is not there.
    """
    content = content or Content.of(job)
    total = estimated_total_tokens(job) if total_tokens is None else total_tokens
    guessed = _is_guessed(job, total_tokens)
    known: Sequence[Settings] = [()]
    only_checked: Sequence[Settings] = ()
    if job.search:
        known = grid.configurations(job.search) or proposed
        only_checked = grid.extremes(job.search) if _to_propose(job, proposed) else ()
    configured: dict[Settings, Job] = {}
    for many in (only_checked, known):
        problems: dict[Problem, None] = {}
        configured = {}
        for settings in many:
            try:
                configured[settings] = grid.applied(job, settings) if settings else job
                problems |= dict.fromkeys(job_problems(configured[settings], total, guessed, content))
            except InputError as error:
                problems |= dict.fromkeys(error.problems)
        if problems:
            raise InputError(*problems)
    return configured


def _is_guessed(job: Job, total_tokens: int | None) -> bool:
    """Return whether the number of CoT tokens is estimated and may be wrong."""
    return total_tokens is None and isinstance(job.model, PretrainedModel) and job.task.type != "multiplication"


def _to_propose(job: Job, proposed: Sequence[Settings]) -> int:
    if job.search is None or job.search.type != "optuna":
        return 0
    return max(0, (job.search.configurations or 0) - len(proposed))


def estimated_total_tokens(job: Job) -> int:
    """Return the CoT tokens that can be removed, without a tokenizer.

    They are those of the longest CoT, whose examples lose the last token. Exact for models from scratch, and for
    multiplication with GPT-2's tokenizer.
    """
    task = make_task(job.task)
    return task.cot_pieces if isinstance(job.model, PretrainedModel) else task.cot_symbols


def _trials(job: Job, settings: Settings, total: int, content: Content) -> Iterator[Trial]:
    """Yield the trials of one configuration: every method with every seed. ``job``: with the settings applied."""
    common, epoch_steps = common_identity(job, content), content.epoch_steps(job)
    specs = {method: _specs(job, method, total, epoch_steps) for method in job.methods}  # seeds differ in nothing else
    for seed, method in product(job.seeds, job.methods):
        own = tuple(s for s in settings if method == "stepwise" or s[0] not in grid.STEPWISE_ONLY)
        alone = job.model_copy(update={"methods": (method,), "seeds": (seed,)})
        yield Trial(
            name=f"{method}-{grid.path_name(own)}seed{seed}",
            method=method,
            seed=seed,
            stages=keyed([replace(spec, seed=seed) for spec in specs[method]], common, alone),
            job=alone,
            settings=own,
        )


def _specs(job: Job, method: Method, total: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    if method == "icot_kd":
        scratch = isinstance(job.model, ScratchModel)
        return parts.stages(job.icot_kd, job.schedule, 0, total, epoch_steps, scratch=scratch)
    specs = STAGES_OF[method](job.schedule, 0, total, epoch_steps)
    return specs if job.max_steps is None else first_steps(specs, job.max_steps)


def common_identity(job: Job, content: Content) -> dict[str, Any]:
    """Return what all stages of a job have in common and what changes their numbers."""
    return {
        "method_version": METHOD_VERSION,
        **content.document(job),
        "training": non_default(job.training),
        "evaluation": job.evaluation.model_dump(include={"examples"}, exclude_defaults=True),
    }


def keyed(
    specs: Iterable[StageSpec], common: dict[str, Any], job: Job, before: Sequence[PlannedStage] = ()
) -> tuple[PlannedStage, ...]:
    """Return stages in their places: a chain of ``job``'s trial, or the rest of one after ``before``."""
    stages = list(before)
    for index, spec in enumerate(specs, len(before)):
        stages.append(_placed(index, spec, _needed(spec, stages), {**common, **_judging(job, spec)}))
    return tuple(stages[len(before) :])


def read_chain(identities: Iterable[dict[str, Any]]) -> tuple[PlannedStage, ...]:
    """Return the stages that have these identities, as they were planned."""
    stages = []
    for index, identity in enumerate(identities):
        parent, document = identity["parent"], identity["stage"]
        parents = tuple(parent) if isinstance(parent, list) else (parent,) if parent else ()
        removals = tuple(Removal(step, removed) for step, removed in document["removals"])
        spec = StageSpec(**{**document, "removals": removals})
        stages.append(PlannedStage(index, digest(identity), parents, spec, identity))
    return tuple(stages)


def _needed(spec: StageSpec, before: Sequence[PlannedStage]) -> list[PlannedStage]:
    """Return the parents of a stage that comes after ``before`` in its chain."""
    return [parent for kind in NEEDS[spec.kind] for parent in [s for s in before if s.spec.kind == kind][-1:]]


def _placed(index: int, spec: StageSpec, parents: Sequence[PlannedStage], identity: dict[str, Any]) -> PlannedStage:
    """Return a stage by its parents. In its identity one parent is a key, as it always was; several are a list."""
    keys = [parent.key for parent in parents]
    above = keys if len(keys) > 1 else next(iter(keys), None)
    identity = {**identity, "parent": above, "stage": spec.document()}
    return PlannedStage(index, digest(identity), tuple(keys), spec, identity)


def _judging(job: Job, spec: StageSpec) -> dict[str, Any]:
    """Return the fields that decide on a stage's record and verdict beside its numbers, where they are not default."""
    fields, judged = {"probe_examples"}, job.methods == ("stepwise",)
    if judged and spec.removed_to:
        fields |= {"restarts", "min_exact_match"}
    judging = job.stability.model_dump(include=fields, exclude_defaults=True)
    if judged and spec.consolidation and not job.schedule.cooldown_stages:
        # It is asked of this stage; with a cooldown it is asked of what follows.
        judging["min_exact_match"] = job.stability.min_exact_match
    return {"stability": judging} if judging else {}
