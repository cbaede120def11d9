"""A job that a command works on: its plan and its trials, replayed once from the store and followed from then on."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.plan import Plan
from orchestrator.store import StageStore, plan_for, proposals, pruned_trials
from orchestrator.trials.chain import Chain
from orchestrator.trials.order import open_chains
from orchestrator.trials.walk import replay_all


class RunningJob:
    """Owns a job's plan, which grows with what Optuna proposes, and the chains of its trials."""

    def __init__(self, plan: Plan, store: StageStore, known: Iterable[Chain] = ()) -> None:
        """Replay the plan's trials. Those in ``known`` are taken from where they stand."""
        self.plan, self.store = plan, store
        self.chains = replay_all(plan, store, known)
        self._proposed = len(proposals(plan.job, store.root)) if plan.to_propose else 0

    def look(self) -> None:
        """Take in what was proposed and committed since the last look."""
        if self.plan.to_propose and (now := len(proposals(self.plan.job, self.store.root))) != self._proposed:
            self._proposed, self.plan = now, plan_for(self.plan.job, self.store, self.plan.total_tokens)
        self.chains = replay_all(self.plan, self.store, self.chains)

    @property
    def open_chains(self) -> list[Chain]:
        """Return the trials with a stage left to run, as of the last look."""
        return open_chains(self.chains, pruned_trials(self.plan, self.store.root))

    @property
    def left(self) -> bool:
        """Return whether there is anything to train, of a trial or of a configuration yet to be proposed."""
        return bool(self.open_chains or self.plan.to_propose)
