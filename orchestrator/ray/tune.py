"""The search: Ray Tune over the trials. Each is a light function that holds one Ray Train run and tells its stages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from traceback import format_exception_only
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepwiseError, TrialError
from orchestrator.plan import Plan, Trial
from orchestrator.ray.joined import Attachment, attached_ray
from orchestrator.ray.local import interruptible, local_ray, ray_storage, tidy_ray_storage
from orchestrator.ray.placement import Placement
from orchestrator.ray.train import TrialTask, fit_chain, stage_metrics
from orchestrator.store import StageStore
from orchestrator.trials.chain import Chain
from orchestrator.trials.order import in_order, open_trials
from orchestrator.trials.walk import proceed

if TYPE_CHECKING:
    from ray.tune import Result


TICK_SECONDS = 0.5
LEAVE_SECONDS = 10.0
INTERRUPTED = "interrupted"
"""The file that tells Tune's thread to end: what Tune holds is pickled, so it cannot be an event."""


def run_trials(plan: Plan, store: StageStore, tick: Callable[[], None], at: Attachment | None = None) -> None:
    """Run every trial that has something left to do, calling ``tick`` twice a second meanwhile.

    On a Ray of its own, or ``at`` a running one.

    Raises ``TrialError`` with every trial's problem when all that could run has run, and
    ``KeyboardInterrupt`` when it was interrupted.
    """
    pending = open_trials(plan, store)
    if not pending and not plan.to_propose:
        tidy_ray_storage(store.root)  # the last command may have been killed at its very end
        return
    problems: list[Problem] = []
    resources = plan.job.resources
    ray = attached_ray(at, resources, store.root) if at else local_ray(resources)
    with ray_storage(store.root) as storage, ray as placement, interruptible() as interrupted:
        search = threading.Thread(
            target=_search, args=(plan, store, pending, placement, storage, problems), daemon=True
        )
        search.start()
        try:
            while search.is_alive() and not interrupted.is_set():
                tick()
                search.join(TICK_SECONDS)
        finally:  # Tune must not ask a Ray that is gone, also when a tick failed
            if search.is_alive():
                (storage / INTERRUPTED).touch()
                search.join(LEAVE_SECONDS)
    if interrupted.is_set():
        raise KeyboardInterrupt
    tick()
    if problems:
        raise TrialError(*problems)


def _search(
    plan: Plan, store: StageStore, trials: list[Trial], placement: Placement, storage: Path, problems: list[Problem]
) -> None:
    from ray import tune

    class EndsWithTheCommand(tune.Callback):
        """Leaves Tune's loop, whose questions would end the process once Ray is gone."""

        def on_step_begin(self, iteration: int, trials: list[object], **info: object) -> None:
            if (storage / INTERRUPTED).exists():
                raise SystemExit  # ends this thread alone, and past Tune's own cleaning up, which takes seconds

    job = plan.job
    if job.search and plan.to_propose:
        from orchestrator.ray.optuna import GroupSearch

        most = len(trials) + plan.to_propose * len(job.seeds) * len(job.methods)
        searcher, space = GroupSearch(plan, job.search, store, storage), {}
    else:
        most, searcher = 1, None
        tasks = [TrialTask.of(trial, plan, store, storage) for trial in in_order(trials, store)]
        space = tune.grid_search([asdict(task) for task in tasks])
    tuner = tune.Tuner(
        tune.with_resources(drive_trial, placement.driver),
        param_space=space,
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=most, max_concurrent_trials=placement.concurrent),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            verbose=0,
            callbacks=[EndsWithTheCommand()],
            failure_config=tune.FailureConfig(max_failures=placement.driver_retries),
        ),
    )
    try:
        for result in tuner.fit():
            problems += _problems(result)
    except Exception as error:
        problems.append(Problem("RUN002", plan.job.name, f"Ray Tune failed: {error}", _CONTINUE))


_CONTINUE = "run the same command to continue from the last committed stage"


def _problems(result: Result) -> list[Problem]:
    """What the trial says itself, or what was raised in it."""
    if result.error is None:
        return [Problem(**problem) for problem in (result.metrics or {}).get(PROBLEMS, ())]
    cause = getattr(result.error, "cause", result.error)
    if isinstance(cause, StepwiseError):
        return list(cause.problems)
    return [Problem("RUN001", result.config["trial"], format_exception_only(cause)[-1].strip(), _CONTINUE)]


POLL_SECONDS = 0.3


PROBLEMS = "problems"
"""Of a trial's last result: why it did not get to its end."""


def drive_trial(config: dict[str, Any]) -> dict[str, Any]:
    """The Tune function: run the chain with Ray Train, report each committed attempt once, and in the end its problems.

    They are no exception, which Tune takes for a driver that was lost with its node and may start again.
    """
    from ray import tune

    task = TrialTask(**config)
    trial, store = task.load()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(fit_chain, task)
        chain = Chain.begin(trial)
        while chain.next:
            finished = outcome.done()
            while chain.next and (manifest := store.manifest(chain.next)):
                chain = proceed(chain, manifest)
                tune.report(stage_metrics(chain.attempts[-1]))
            if finished:
                break
            wait([outcome], POLL_SECONDS)
        problems = outcome.result()
    return {PROBLEMS: [asdict(problem) for problem in problems]} if problems else {}
