"""A job from beginning to end: data, plan, Tune over the trials, and what stands in the store at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from traceback import format_exception_only

from orchestrator.errors import Problem, StepwiseError, TrialError
from orchestrator.plan import Plan, Trial
from orchestrator.runtime.cluster import DRIVER, concurrent_trials, interruptible, local_ray, ray_storage
from orchestrator.runtime.trial import TrialTask, drive_trial
from orchestrator.store import StageStore, replay

TICK_SECONDS = 0.5


def run_trials(plan: Plan, store: StageStore, tick: Callable[[], None]) -> None:
    """Run every trial that has something left to do, calling ``tick`` twice a second meanwhile.

    Raises ``TrialError`` with every trial's problem when all that could run has run, and
    ``KeyboardInterrupt`` when it was interrupted.
    """
    pending = [trial for trial in plan.trials if is_open(trial, store)]
    if not pending:
        return
    concurrent = concurrent_trials(plan.job.resources)
    problems: list[Problem] = []
    with ray_storage(store.root) as storage, local_ray(), interruptible() as interrupted:
        search = threading.Thread(
            target=_search, args=(plan, store, pending, concurrent, storage, problems), daemon=True
        )
        search.start()
        while search.is_alive() and not interrupted.is_set():
            tick()
            search.join(TICK_SECONDS)
    if interrupted.is_set():
        raise KeyboardInterrupt
    tick()
    if problems:
        raise TrialError(*problems)


def is_open(trial: Trial, store: StageStore) -> bool:
    """Whether a trial has a stage left to run: not all stand, and it has not given up."""
    return replay(trial, store).next is not None


def _search(
    plan: Plan, store: StageStore, trials: list[Trial], concurrent: int, storage: Path, problems: list[Problem]
) -> None:
    from ray import tune

    job = plan.job.model_dump_json()
    longest_first = sorted(trials, key=lambda trial: (-trial.cot_token_steps, -trial.steps))
    tasks = [TrialTask(job, str(store.root), plan.total_tokens, trial.name, str(storage)) for trial in longest_first]
    tuner = tune.Tuner(
        tune.with_resources(drive_trial, {DRIVER: 1}),
        param_space=tune.grid_search([asdict(task) for task in tasks]),
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(name="tune", storage_path=str(storage), verbose=0),
    )
    try:
        for result in tuner.fit():
            if result.error:
                problems += _problems(result.config["trial"], result.error)
    except Exception as error:
        problems.append(Problem("RUN002", plan.job.name, f"Ray Tune failed: {error}", _CONTINUE))


_CONTINUE = "run the same command to continue from the last committed stage"


def _problems(trial: str, error: BaseException) -> list[Problem]:
    cause = getattr(error, "cause", error)
    if isinstance(cause, StepwiseError):
        return list(cause.problems)
    return [Problem("RUN001", trial, format_exception_only(cause)[-1].strip(), _CONTINUE)]
