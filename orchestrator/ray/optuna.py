"""Optuna in Ray Tune, one configuration and all its seeds at a time.

Tune asks for one trial after another. A configuration that Optuna suggests is written to the store at
once and becomes its group of trials; Optuna is told the group's objective when all of them have ended.
What an earlier command recorded comes first: its open trials run, its results are told to Optuna.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from orchestrator.config import Range, Search
from orchestrator.plan import Plan, build_plan
from orchestrator.plan.grid import Settings, rounded
from orchestrator.ray.train import TrialTask
from orchestrator.results.frontier import frontier
from orchestrator.results.ranking import standings
from orchestrator.store import StageStore, plan_for, proposals, pruned_trials, record_proposal, save_job
from orchestrator.trials.order import in_order, open_trials

OBJECTIVE = "objective"


class GroupSearch(Searcher):
    """A Tune searcher that proposes configurations with Optuna and returns their trials."""

    def __init__(self, plan: Plan, search: Search, store: StageStore, ray_storage: Path) -> None:
        super().__init__()  # without a metric: Tune would look for it in every stage's result
        self._plan, self._search, self._store, self._ray_storage = plan, search, store, ray_storage
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        recorded = proposals(plan.job, store.root)
        # A seed used again would draw the first, random suggestions again.
        seed = search.seed + len(recorded)
        self._optuna = OptunaSearch(_distributions(search), metric=OBJECTIVE, mode="max", seed=seed)
        self._untold: list[tuple[Settings, str | None]] = [(settings, None) for settings in recorded]
        self._queue = in_order(open_trials(plan, store), store)
        self._tell()

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        while not self._queue:
            if not self._plan.to_propose:
                return Searcher.FINISHED
            self._propose(trial_id)
        return asdict(TrialTask.of(self._queue.pop(0), self._plan, self._store, self._ray_storage))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._tell()

    def _propose(self, trial_id: str) -> None:
        asked = f"{trial_id}-{self._plan.to_propose}"
        suggested = self._optuna.suggest(asked)
        settings = tuple((field, rounded(suggested[field], values)) for field, values in self._search.space.items())
        known = {trial.name for trial in self._plan.trials}
        build_plan(self._plan.job, self._plan.total_tokens, [settings])  # what cannot be a job is not recorded
        record_proposal(self._plan.job, self._store.root, settings)
        self._plan = plan_for(self._plan.job, self._store, self._plan.total_tokens)
        save_job(self._plan, self._store)
        self._untold.append((settings, asked))
        new = [trial for trial in open_trials(self._plan, self._store) if trial.name not in known]
        self._queue += in_order(new, self._store)
        self._tell()

    def _tell(self) -> None:
        """Tell Optuna what every configuration is worth whose trials have ended since the last time."""
        ranked = standings(self._plan, frontier(self._plan, self._store), pruned_trials(self._plan, self._store.root))
        values = {standing.settings: standing.value for standing in ranked if standing.value is not None}
        for settings, asked in [entry for entry in self._untold if entry[0] in values]:
            if asked:
                self._optuna.on_trial_complete(asked, {OBJECTIVE: values[settings]})
            else:
                self._optuna.add_evaluated_point(dict(settings), values[settings])
            self._untold.remove((settings, asked))


def _distributions(search: Search) -> dict[str, BaseDistribution]:
    return {field: _distribution(values) for field, values in search.space.items()}


def _distribution(values: Any) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    kind = IntDistribution if values.whole else FloatDistribution
    return kind(values.low, values.high, log=values.log)
