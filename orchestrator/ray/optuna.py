"""Optuna in Ray Tune, one configuration and all its seeds at a time.

Tune asks for one trial after another. A configuration that Optuna suggests is written to the store at once and becomes
its group of trials; Optuna is told the group's objective when all of them have ended. What an earlier command recorded
comes first: its open trials run, its results are told to Optuna.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from orchestrator.config import Range, Search
from orchestrator.plan import Plan, configured_jobs
from orchestrator.plan.grid import Settings, rounded
from orchestrator.ray.train import TrialTask
from orchestrator.results.frontier import points_of
from orchestrator.results.ranking import standings
from orchestrator.store import StageStore, proposals, pruned_trials, record_proposal, save_job
from orchestrator.trials.chain import Chain
from orchestrator.trials.order import in_order
from orchestrator.trials.running import RunningJob

OBJECTIVE = "objective"


class GroupSearch(Searcher):
    """A Tune searcher that proposes configurations with Optuna and returns their trials."""

    def __init__(
        self, plan: Plan, search: Search, store: StageStore, ray_storage: Path, known: Iterable[Chain] = ()
    ) -> None:
        """``known``: chains replayed before."""
        super().__init__()  # without a metric: Tune would look for it in every stage's result
        self._running = RunningJob(plan, store, known)
        self._search, self._store, self._ray_storage = search, store, ray_storage
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        recorded = proposals(plan.job, store.root)
        # A seed used again would draw the first, random suggestions again.
        seed = search.seed + len(recorded)
        space = {field: _distribution(values) for field, values in search.space.items()}
        self._optuna = OptunaSearch(space, metric=OBJECTIVE, mode="max", seed=seed)
        self._untold: list[tuple[Settings, str | None]] = [(settings, None) for settings in recorded]
        self._queue = in_order(self._running.open_chains)
        self._tell()

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next trial's task. Proposes another configuration when all trials of the last have begun."""
        while not self._queue:
            if not self._running.plan.to_propose:
                return Searcher.FINISHED
            self._propose(trial_id)
        return asdict(TrialTask.of(self._queue.pop(0), self._running.plan, self._store, self._ray_storage))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna of a trial that has ended, if it is the last of its group."""
        self._tell()

    def _propose(self, trial_id: str) -> None:
        plan = self._running.plan
        asked = f"{trial_id}-{plan.to_propose}"
        suggested = self._optuna.suggest(asked)
        settings = tuple((field, rounded(suggested[field], values)) for field, values in self._search.space.items())
        configured_jobs(plan.job, plan.total_tokens, [settings])  # settings that make no job are not recorded
        record_proposal(plan.job, self._store.root, settings)
        known = {trial.name for trial in plan.trials}
        self._untold.append((settings, asked))
        self._tell()
        save_job(self._running.plan, self._store)
        self._queue += in_order(chain for chain in self._running.open_chains if chain.trial.name not in known)

    def _tell(self) -> None:
        """Tell Optuna what every configuration is worth whose trials have ended since the last time."""
        self._running.look()
        running, root = self._running, self._store.root
        ranked = standings(running.plan, points_of(running.chains), pruned_trials(running.plan, root))
        values = {standing.settings: standing.value for standing in ranked if standing.value is not None}
        for settings, asked in [entry for entry in self._untold if entry[0] in values]:
            if asked:
                self._optuna.on_trial_complete(asked, {OBJECTIVE: values[settings]})
            else:
                self._optuna.add_evaluated_point(dict(settings), values[settings])
            self._untold.remove((settings, asked))


def _distribution(values: Any) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)
