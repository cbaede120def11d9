"""Which trials have something left to do, and which of them begin."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.plan import Plan, Trial
from orchestrator.store import StageStore, pruned_trials
from orchestrator.trials.walk import replay


def open_trials(plan: Plan, store: StageStore) -> list[Trial]:
    """The trials with a stage left to run: not all stand, not given up, not pruned."""
    pruned = pruned_trials(plan, store.root)
    return [trial for trial in plan.trials if trial.name not in pruned and replay(trial, store).next]


def in_order(trials: Iterable[Trial], store: StageStore) -> list[Trial]:
    """Longest first, but last of all those that need a stage which an earlier trial is about to train.

    They would only hold a core and wait for it.
    """
    leading: dict[str, Trial] = {}
    following = []
    for trial in sorted(trials, key=lambda trial: (-trial.cot_token_steps, -trial.steps)):
        stage = replay(trial, store).next
        if stage is None:
            continue
        if stage.key in leading:
            following.append(trial)
        else:
            leading[stage.key] = trial
    return [*leading.values(), *following]
