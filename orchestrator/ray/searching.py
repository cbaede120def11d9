"""The search: Ray Tune over the trials. Each is a light function that holds one Ray Train run and tells its stages."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import format_exception_only
from typing import Any

from ray import tune

from orchestrator.errors import Problem, StepwiseError
from orchestrator.plan import Plan
from orchestrator.ray.placement import Placement
from orchestrator.ray.train import TrialTask, fit_chain, stage_metrics
from orchestrator.store import StageStore
from orchestrator.trials.chain import Chain
from orchestrator.trials.order import in_order
from orchestrator.trials.walk import proceed

POLL_SECONDS = 0.3
PROBLEMS = "problems"
"""The key in a trial's last result for why it did not get to its end."""
LEAVING = threading.Event()
"""Set when the command ends before its search. It belongs to the module as Tune pickles all that it is given, and an
event cannot be pickled."""

_CONTINUE = "run the same command to continue from the last committed stage"


class EndsWithTheCommand(tune.Callback):
    """Leaves Tune's loop, whose questions would end the process once Ray is gone."""

    def on_step_begin(self, iteration: int, trials: list[object], **info: object) -> None:
        if LEAVING.is_set():
            raise SystemExit  # ends Tune's thread alone, and past Tune's own cleaning up, which takes seconds


@dataclass(frozen=True)
class TuneSearch:
    """Everything that a search needs to know."""

    plan: Plan
    store: StageStore
    open_chains: Sequence[Chain]
    """The trials that have something left to do."""
    placement: Placement
    ray_storage: Path

    def run(self) -> list[Problem]:
        """Run the trials, and those that Optuna proposes. Returns why trials did not get to their ends."""
        job = self.plan.job
        if job.search and self.plan.to_propose:
            from orchestrator.ray.optuna import GroupSearch

            searcher, space = GroupSearch(self.plan, job.search, self.store, self.ray_storage, self.open_chains), {}
            most = len(self.open_chains) + self.plan.to_propose * len(job.seeds) * len(job.methods)
        else:
            trials = in_order(self.open_chains)
            tasks = [TrialTask.of(trial, self.plan, self.store, self.ray_storage) for trial in trials]
            searcher, space, most = None, tune.grid_search([asdict(task) for task in tasks]), 1
        tuner = tune.Tuner(
            tune.with_resources(drive_trial, self.placement.driver),
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=searcher, num_samples=most, max_concurrent_trials=self.placement.concurrent
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self.ray_storage),
                verbose=0,
                callbacks=[EndsWithTheCommand()],
                failure_config=tune.FailureConfig(max_failures=self.placement.driver_retries),
            ),
        )
        try:
            return [problem for result in tuner.fit() for problem in problems_in(result)]
        except Exception as error:
            return [Problem("RUN002", job.name, f"Ray Tune failed: {error}", _CONTINUE)]


def problems_in(result: tune.Result) -> Iterator[Problem]:
    """Yield what a trial says itself about why it did not get to its end, or what was raised in it."""
    if result.error is None:
        for problem in (result.metrics or {}).get(PROBLEMS, ()):
            yield Problem(**problem)
        return
    cause = getattr(result.error, "cause", result.error)
    if isinstance(cause, StepwiseError):
        yield from cause.problems
    else:
        trial = (result.config or {}).get("trial", "a trial")
        yield Problem("RUN001", trial, format_exception_only(cause)[-1].strip(), _CONTINUE)


def drive_trial(config: dict[str, Any]) -> dict[str, Any]:
    """Run a trial's chain with Ray Train, report each committed attempt once, and in the end its problems.

    This is the Tune function. Problems are no exception, which Tune takes for a driver that was lost with its node
    and may start again.
    """
    task = TrialTask(**config)
    trial, store = task.load()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(fit_chain, task)
        chain = Chain.begin(trial)
        while chain.next:
            finished = outcome.done()  # asked before the store, so that nothing committed at the end is missed
            while chain.next and (manifest := store.manifest(chain.next)):
                chain = proceed(chain, manifest)
                tune.report(stage_metrics(chain.attempts[-1]))
            if finished:
                break
            wait([outcome], POLL_SECONDS)
        problems = outcome.result()
    return {PROBLEMS: [asdict(problem) for problem in problems]} if problems else {}
