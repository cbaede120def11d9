"""Stops configurations of a search early: successive halving along removed tokens.

The validation loss is compared, not exact match. While tokens go, the exact match of a small model is near zero
for every configuration and comes back only when the last token is gone. Even then the loss over the tokens that
are left to write tells which configuration learns.

Two configurations are compared at the same number of removed tokens, each at the end of the stage whose last
removal led there. That is just before its next removal (after the last one: at the end of the stage that removed
it). So each is as recovered as its own schedule lets it be, and none is measured between a removal and its
recovery. Pretraining and consolidation stages are never compared. Rungs are the counts at which every
configuration ends such a stage; a configuration is on a rung once all its seeds are.

At each rung the best third of the configurations on it set the bar. A configuration is behind if its mean loss is
more than a tenth above the bar. A loss that is not finite is behind all others, and a tie is not behind. A
configuration stops when it was behind at two or more rungs and at every one so far: once level with the best
third, it is never stopped. With fewer than three configurations on a rung none is behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.config import Job
from orchestrator.plan import Plan, Trial
from orchestrator.plan.grid import Settings, symbols
from orchestrator.store import StageStore, plan_for, pruned_trials
from orchestrator.trials.chain import standing_manifests
from orchestrator.trials.walk import replay_all

ETA = 3
"""The share of configurations that set the bar is one in so many."""
FEWEST = 3
"""The configurations that must be on a rung before one can be behind."""
MARGIN = 0.1
"""The share by which a loss may be above the bar."""
PATIENCE = 2
"""The rungs that must agree."""


@dataclass(frozen=True)
class Rung:
    """The configurations that were compared at one number of removed tokens: their mean losses."""

    removed_tokens: int
    losses: Mapping[Settings, float]

    @property
    def bar(self) -> float:
        """The loss of the last of the best third."""
        return sorted(map(_worst_if_not_finite, self.losses.values()))[max(1, len(self.losses) // ETA) - 1]

    def behind(self, settings: Settings) -> bool:
        """Return whether a configuration is too far above the bar."""
        if len(self.losses) < FEWEST:
            return False
        return _worst_if_not_finite(self.losses[settings]) > self.bar * (1 + MARGIN)


def rungs(plan: Plan, loss_of: Mapping[str, float]) -> tuple[Rung, ...]:
    """Return the rungs that were reached so far, fewest tokens first. ``loss_of``: validation loss by stage key."""
    compared = {
        settings: [{s.spec.removed_to: s.key for s in trial.stages if s.spec.removals} for trial in trials]
        for settings, trials in plan.groups.items()
    }
    common = set.intersection(*(set(seed) for seeds in compared.values() for seed in seeds)) if compared else set()
    found = []
    for removed in sorted(common):
        losses = {
            settings: fmean(loss_of[seed[removed]] for seed in seeds)
            for settings, seeds in compared.items()
            if all(seed[removed] in loss_of for seed in seeds)
        }
        if losses:
            found.append(Rung(removed, losses))
    return tuple(found)


def reason_to_stop(settings: Settings, reached: Sequence[Rung]) -> str | None:
    """Return why a configuration should not go on, or None if it should."""
    own = [rung for rung in reached if settings in rung.losses]
    if len(own) < PATIENCE or not all(rung.behind(settings) for rung in own):
        return None
    last = own[-1]
    return (
        f"{symbols(settings)} stayed behind: at {last.removed_tokens} removed tokens its loss is "
        f"{last.losses[settings]:.3g}, the best third of {len(last.losses)} configurations has at most {last.bar:.3g}"
    )


def _worst_if_not_finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def reason_to_prune(job: Job, total_tokens: int, trial: Trial, store: StageStore) -> str | None:
    """Return why a trial should not go on, or None if it should. A reason holds for all seeds of a configuration."""
    if job.search is None or not job.search.prune or trial.method != "stepwise":
        return None
    plan = plan_for(job, store, total_tokens)
    group = next(trials for trials in plan.groups.values() if trial.name in {t.name for t in trials})
    stopped = pruned_trials(plan, store.root)
    reasons = [stopped[t.name].reason for t in group if t.name in stopped]
    return reasons[0] if reasons else reason_to_stop(group[0].settings, rungs(plan, _losses(plan, store)))


def _losses(plan: Plan, store: StageStore) -> dict[str, float]:
    """Return the loss of the stage that stands in the place of each planned one; infinite where a trial gave up."""
    chains = replay_all(plan, store)
    stopped = (chain.trial.stages[len(chain.standing)].key for chain in chains if chain.given_up)
    passed = {key: manifest.metrics.validation_loss for key, manifest in standing_manifests(chains).items()}
    return {**dict.fromkeys(stopped, math.inf), **passed}
