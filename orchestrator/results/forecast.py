"""The plan as a record: the work to be done, and its cost."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.config import Job, ScratchModel
from orchestrator.method.stage import Record
from orchestrator.plan import Plan, PlannedStage, build_plan, grid
from orchestrator.store import Manifest, StageStore
from orchestrator.tasks import make_task
from orchestrator.trials.chain import standing_manifests
from orchestrator.trials.walk import replay_all

TYPICAL_FLOPS_PER_CORE = 8e10
"""The FLOP/s of training on one CPU core in bf16, as measured here; replaced by the store's own figures."""
BYTES_PER_PARAMETER = 12
"""The bytes of a stage per parameter: fp32 weights and AdamW's two moments."""


class StageForecast(Record):
    """A planned stage. ``seconds``: the time of training it alone."""

    stage: int
    kind: str
    key: str
    steps: int
    removed_from: int
    removed_to: int
    shared: bool
    """True if other trials have the stage too."""
    in_store: bool
    seconds: float | None


class TrialForecast(Record):
    """A trial as planned."""

    trial: str
    steps: int
    stages: tuple[StageForecast, ...]


class ProposalForecast(Record):
    """The least and the most that a configuration which Optuna may propose costs.

    All its seeds and methods are counted, and all that it may share with others.
    """

    steps: tuple[int, int]
    seconds: tuple[int, int] | None


class Forecast(Record):
    """A plan and its cost, as ``stepwise plan --json`` gives them.

    Times and bytes are estimates; None where nothing is known.
    """

    job: str
    total_tokens: int
    estimated: bool
    """True if ``total_tokens`` is an estimate, until the tokenizer has counted."""
    trials: tuple[TrialForecast, ...]
    steps: int
    steps_shared: int
    steps_left: int
    to_propose: int
    """The configurations that Optuna has yet to name, not in these sums."""
    proposal: ProposalForecast | None
    """The cost of one of them; None where the fields have too many values to combine."""
    seconds_left: int | None
    disk_bytes_left: int | None


def forecast(plan: Plan, store: StageStore) -> Forecast:
    """Return the plan with what stands of it, and estimate the rest."""
    shared, unique = plan.shared, plan.unique_stages
    chains = replay_all(plan, store)
    manifests = standing_manifests(chains)
    job_of = {stage.key: trial.job for trial in plan.trials for stage in trial.stages}
    symbols = _example_symbols(plan)
    work = {key: _work(job_of[key], stage, symbols) for key, stage in unique.items()}
    rate = _seconds_per_work(plan.job, work, manifests)

    def stage_forecast(stage: PlannedStage) -> StageForecast:
        return StageForecast(
            stage=stage.index,
            kind=stage.spec.kind,
            key=stage.key,
            steps=stage.spec.steps,
            removed_from=stage.spec.removed_from,
            removed_to=stage.spec.removed_to,
            shared=stage.key in shared,
            in_store=stage.key in manifests,
            seconds=None if rate is None else round(rate * work[stage.key], 1),
        )

    left = {stage.key: None for chain in chains if chain.next for stage in chain.trial.stages[len(chain.standing) :]}
    size = _stage_bytes(plan.job, manifests)
    return Forecast(
        job=plan.job.name,
        total_tokens=plan.total_tokens,
        estimated=plan.estimated,
        trials=tuple(
            TrialForecast(trial=trial.name, steps=trial.steps, stages=tuple(map(stage_forecast, trial.stages)))
            for trial in plan.trials
        ),
        steps=sum(trial.steps for trial in plan.trials),
        steps_shared=sum(trial.steps for trial in plan.trials) - _steps(unique.values()),
        steps_left=_steps(unique[key] for key in left),
        to_propose=plan.to_propose,
        proposal=_proposal(plan, rate),
        seconds_left=None if rate is None else round(sum(rate * work[key] for key in left)),
        disk_bytes_left=None if size is None else size * len(left),
    )


def _proposal(plan: Plan, rate: float | None) -> ProposalForecast | None:
    corners = grid.corners(plan.job.search) if plan.to_propose and plan.job.search else ()
    if not corners:
        return None
    plans = [
        build_plan(grid.applied(plan.job, settings), plan.total_tokens, content=plan.content) for settings in corners
    ]
    steps, symbols = sorted(_steps(each.unique_stages.values()) for each in plans), _example_symbols(plan)
    work = sorted(sum(_work(each.job, stage, symbols) for stage in each.unique_stages.values()) for each in plans)
    seconds = None if rate is None else (round(rate * work[0]), round(rate * work[-1]))
    return ProposalForecast(steps=(steps[0], steps[-1]), seconds=seconds)


def _steps(stages: Iterable[PlannedStage]) -> int:
    return sum(stage.spec.steps for stage in stages)


def _example_symbols(plan: Plan) -> int:
    """Return the symbols of the longest example, as they were counted when the plan was made."""
    return plan.content.example_symbols if plan.content else make_task(plan.job.task).example_symbols


def _work(job: Job, stage: PlannedStage, example_symbols: int) -> int:
    """Return about how many tokens pass through the model while the stage trains, times its weights if known."""
    length = example_symbols + 3 - (stage.spec.removed_from + stage.spec.removed_to) // 2
    return stage.spec.steps * job.training.batch_size * length * (_parameters(job) or 1)


def _seconds_per_work(job: Job, work: dict[str, int], manifests: dict[str, Manifest]) -> float | None:
    if manifests:
        seconds = sum(m.metrics.train_seconds + m.metrics.evaluate_seconds for m in manifests.values())
        return seconds / sum(work[key] for key in manifests)
    return None if _parameters(job) is None else 6 / TYPICAL_FLOPS_PER_CORE


def _parameters(job: Job) -> int | None:
    """Return the weights of a model from scratch; a pretrained one is not opened for a plan."""
    if not isinstance(job.model, ScratchModel):
        return None
    return 12 * job.model.layers * job.model.width**2


def _stage_bytes(job: Job, manifests: dict[str, Manifest]) -> int | None:
    for manifest in manifests.values():
        if manifest.files:
            return sum(file.size for file in manifest.files)
    parameters = _parameters(job)
    return None if parameters is None else BYTES_PER_PARAMETER * parameters
