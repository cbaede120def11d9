"""Whether a trial goes on: the rule of ``search.pruning`` applied to what the store holds."""

from __future__ import annotations

import math

from orchestrator.config import Job
from orchestrator.plan import Plan, Trial
from orchestrator.search import reason_to_stop, rungs
from orchestrator.store import Pruned, StageStore, plan_for, pruned_trials, record_pruned
from orchestrator.trials.chain import replay_all, standing_manifests


def goes_on(job: Job, total_tokens: int, trial: Trial, store: StageStore) -> bool:
    """Asked between two stages. The answer no is recorded, and holds for all seeds of a configuration."""
    if job.search is None or not job.search.prune or trial.method != "stepwise":
        return True
    plan = plan_for(job, store, total_tokens)
    group = next(trials for trials in plan.groups.values() if trial.name in {t.name for t in trials})
    stopped = pruned_trials(plan, store.root)
    reasons = [stopped[t.name].reason for t in group if t.name in stopped]
    reason = reasons[0] if reasons else reason_to_stop(group[0].settings, rungs(plan, _losses(plan, store)))
    if reason:
        record_pruned(trial, store.root, Pruned(chain=trial.stages[-1].key, reason=reason))
    return reason is None


def _losses(plan: Plan, store: StageStore) -> dict[str, float]:
    """By planned stage: of what stands in its place; infinite where a trial gave up."""
    chains = replay_all(plan, store)
    stopped = (chain.trial.stages[len(chain.standing)].key for chain in chains if chain.given_up)
    passed = {key: manifest.metrics.validation_loss for key, manifest in standing_manifests(chains).items()}
    return {**dict.fromkeys(stopped, math.inf), **passed}
