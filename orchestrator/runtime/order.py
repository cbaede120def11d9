"""Which trials have something left to do, and which of them begin."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.plan import Plan, Trial
from orchestrator.store import StageStore, pruned_trials


def open_trials(plan: Plan, store: StageStore) -> list[Trial]:
    """The trials with a stage left to run: not all committed, none diverged, not pruned."""
    pruned = pruned_trials(plan, store.root)
    return [trial for trial in plan.trials if trial.name not in pruned and _is_open(trial, store)]


def in_order(trials: Iterable[Trial], store: StageStore) -> list[Trial]:
    """Longest first, but last of all those that need a stage which an earlier trial is about to train.

    They would only hold a core and wait for it.
    """
    leading: dict[str, Trial] = {}
    following = []
    for trial in sorted(trials, key=lambda trial: (-trial.cot_token_steps, -trial.steps)):
        key = next(stage.key for stage in trial.stages if store.manifest(stage) is None)
        if key in leading:
            following.append(trial)
        else:
            leading[key] = trial
    return [*leading.values(), *following]


def _is_open(trial: Trial, store: StageStore) -> bool:
    for stage in trial.stages:
        manifest = store.manifest(stage)
        if manifest is None:
            return True
        if manifest.verdict != "good":
            return False
    return False
