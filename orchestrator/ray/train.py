"""A trial as one Ray Train run for the whole chain: its workers walk the stages.

The two sides share the store. Workers commit stages and write their progress to files; the Tune function
(``searching.drive_trial``) watches the store and reports every committed stage from its own thread
(``TuneReportCallback`` can hang a trial for ever; research notes, ray.md §1.4).
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import Job
from orchestrator.errors import Problem, StepwiseError
from orchestrator.plan import Plan, Trial, read_chain
from orchestrator.ray.local import OWN_RAY
from orchestrator.store import Pruned, StageStore, record_pruned
from orchestrator.trials.chain import Attempt
from orchestrator.trials.progress import ProgressFile


@dataclass(frozen=True)
class TrialTask:
    """Everything that a Tune trial and its workers are told, enough to rebuild the trial anywhere.

    Plain values, as Tune and Train show and pickle them.
    """

    trial: str
    """The name of the trial."""
    job: str
    """The trial's own job as JSON."""
    chain: str
    """The identities of its stages as JSON."""
    whole: str
    """The job it is a trial of, as JSON."""
    total_tokens: int
    """The tokens of the plan's longest CoT."""
    store: str
    """The root folder of the store."""
    ray_storage: str
    """The folder that Ray's nodes share while the command lasts."""

    @classmethod
    def of(cls, trial: Trial, plan: Plan, store: StageStore, ray_storage: Path) -> TrialTask:
        """Return the task of a plan's trial."""
        return cls(
            trial=trial.name,
            job=trial.job.model_dump_json(),
            chain=json.dumps([stage.identity for stage in trial.stages]),
            whole=plan.job.model_dump_json(),
            total_tokens=plan.total_tokens,
            store=str(store.root),
            ray_storage=str(ray_storage),
        )

    def load(self) -> tuple[Trial, StageStore]:
        """Return the trial and the store."""
        job = Job.model_validate_json(self.job)
        trial = Trial(self.trial, job.methods[0], job.seeds[0], read_chain(json.loads(self.chain)), job)
        return trial, StageStore(Path(self.store))


def stage_metrics(attempt: Attempt) -> dict[str, float | str]:
    """Return what Ray is told of a committed attempt."""
    return {
        "stage": attempt.stage.index,
        "removed_tokens": attempt.manifest.metrics.removed_tokens,
        "exact_match": attempt.manifest.metrics.exact_match,
        "verdict": attempt.manifest.verdict,
    }


def fit_chain(task: TrialTask) -> tuple[Problem, ...]:
    """Run a trial's chain with Ray Train, again and elsewhere whenever a node is drained under it.

    Returns why it did not get to its end; nothing if it did. No Train run's name is ever used again: the store alone
    says what is done.
    """
    import ray.train

    from orchestrator.ray.private import LeanTrainer, LocalTrainer

    trial, _ = task.load()
    resources = trial.job.resources
    backend = None
    # One worker needs no process group, so the trial and its controller need not import torch (2 x 2 s).
    if resources.workers > 1:
        from ray.train.torch import TorchConfig

        backend = TorchConfig()
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    problems = None
    while problems is None:
        trainer = (LocalTrainer if OWN_RAY in os.environ else LeanTrainer)(
            train_trial,
            train_loop_config=asdict(task),
            backend_config=backend,
            scaling_config=ray.train.ScalingConfig(
                num_workers=resources.workers, use_gpu=resources.gpus_per_worker > 0, resources_per_worker=per_worker
            ),
            run_config=ray.train.RunConfig(
                name=f"{trial.name}-{uuid.uuid4().hex[:8]}",
                storage_path=task.ray_storage,
                failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=3),
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )
        problems = trainer.fit().return_value
    return problems


def train_trial(config: dict[str, Any]) -> tuple[Problem, ...] | None:
    """Walk the stages and report each attempt to Ray with a checkpoint: the function of every Train worker.

    Returns why the trial did not get to its end; None if it has to go on elsewhere.
    """
    import ray.train.torch
    import torch

    from orchestrator.ray.private import node_is_drained
    from orchestrator.trials.data import prepare_data
    from orchestrator.trials.runner import Hooks, StageRunner, Workplace
    from orchestrator.trials.snapshot import NodeDrained
    from orchestrator.trials.walk import walk

    task = TrialTask(**config)
    trial, store = task.load()
    job, whole = trial.job, Job.model_validate_json(task.whole)
    torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
    progress = ProgressFile(store.root, job.name, trial.name)
    first = ray.train.get_context().get_world_rank() == 0

    def work() -> None:
        runner = StageRunner(
            Workplace(job, prepare_data(job, store), store, ray.train.torch.get_device()),
            Hooks(
                watch=lambda stage, at: progress.write(stage, at.step, at.removed_tokens) if first else None,
                goes_on=lambda: goes_on(whole, task.total_tokens, trial, store),
                drained=node_is_drained,
            ),
        )
        for chain in walk(trial, runner):
            attempt = chain.attempts[-1]
            if first:
                _report_with_pointer(attempt, store, task.ray_storage)
            else:
                ray.train.report(stage_metrics(attempt))

    try:
        return problems_of(trial, work)
    except NodeDrained:
        return None


def goes_on(job: Job, total_tokens: int, trial: Trial, store: StageStore) -> bool:
    """Return whether a trial of ``job`` is worth another stage. The answer no is recorded, for all its seeds."""
    from orchestrator.results.pruning import reason_to_prune

    reason = reason_to_prune(job, total_tokens, trial, store)
    if reason:
        record_pruned(trial, store.root, Pruned(chain=trial.stages[-1].key, reason=reason))
    return reason is None


def problems_of(trial: Trial, work: Callable[[], None]) -> tuple[Problem, ...]:
    """Do a trial's work. Returns the problems that Ray would only meet again; nothing if the work got done.

    They are raised where there are several workers, which wait for one another until Ray ends them: there Ray does
    try again.
    """
    from orchestrator.trials.memory import enough_memory

    try:
        with enough_memory(trial.name):
            work()
    except StepwiseError as error:
        if trial.job.resources.workers > 1:
            raise
        return tuple(error.problems)
    return ()


def _report_with_pointer(attempt: Attempt, store: StageStore, ray_storage: str) -> None:
    """Report an attempt with a checkpoint that only names its folder: the weights in the store are not copied."""
    import ray.train

    # Written where the command removes everything at its end: a worker that is killed here removes nothing.
    with tempfile.TemporaryDirectory(dir=ray_storage) as folder:
        pointer = {"stage_key": attempt.manifest.key, "folder": str(store.folder(attempt.manifest))}
        (Path(folder) / "stage.json").write_text(json.dumps(pointer))
        ray.train.report(stage_metrics(attempt), checkpoint=ray.train.Checkpoint.from_directory(folder))
