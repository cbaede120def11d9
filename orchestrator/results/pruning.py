"""When a configuration stops early: successive halving along removed tokens, of those that stay behind.

What is compared is the validation loss, not exact match. While tokens go, the exact match of a small
model is near zero for every configuration and comes back only when the last token is gone; the loss
over the tokens that are left to write tells even then who learns.

What is comparable: two configurations at the same number of removed tokens, each at the end of the
stage whose last removal led there. That is just before its next removal (after the last one: at the end of
the stage that removed it), so each is as recovered as its own schedule lets it be, and nobody is measured
between a removal and its recovery. Pretraining and consolidation stages are never compared. Rungs are the
counts at which every configuration ends such a stage; a configuration is on a rung once all its seeds are.

Who stops: at each rung the best third of those on it set the bar. A configuration is behind if its mean loss
is more than a tenth above the bar; a loss that is not finite is behind everyone, and a tie is not behind.
It stops when it was behind at two or more rungs and at every one so far: once level with the best third, it is
never stopped. With fewer than three configurations on a rung nobody is behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.config import Job
from orchestrator.plan import Plan, PlannedStage, Trial
from orchestrator.plan.grid import Settings, symbols
from orchestrator.store import StageStore, plan_for, pruned_trials
from orchestrator.trials.chain import standing_manifests
from orchestrator.trials.walk import replay_all

ETA = 3
"""One in so many sets the bar."""
FEWEST = 3
"""Configurations that must be on a rung before anyone is behind."""
MARGIN = 0.1
"""How much above the bar a loss may be."""
PATIENCE = 2
"""Rungs that must agree."""


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
        if len(self.losses) < FEWEST:
            return False
        return _worst_if_not_finite(self.losses[settings]) > self.bar * (1 + MARGIN)


def rungs(plan: Plan, loss_of: Mapping[str, float]) -> tuple[Rung, ...]:
    """The rungs that were reached so far, fewest tokens first. ``loss_of``: validation loss by stage key."""
    compared = {
        settings: [{stage.spec.removed_to: stage.key for stage in trial.stages if _removes(stage)} for trial in trials]
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
    """Why a configuration should not go on, or None if it should."""
    own = [rung for rung in reached if settings in rung.losses]
    if len(own) < PATIENCE or not all(rung.behind(settings) for rung in own):
        return None
    last = own[-1]
    return (
        f"{symbols(settings)} stayed behind: at {last.removed_tokens} removed tokens its loss is "
        f"{last.losses[settings]:.3g}, the best third of {len(last.losses)} configurations has at most {last.bar:.3g}"
    )


def _removes(stage: PlannedStage) -> bool:
    return bool(stage.spec.removals)


def _worst_if_not_finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def reason_to_prune(job: Job, total_tokens: int, trial: Trial, store: StageStore) -> str | None:
    """Why a trial should not go on, or None if it should. A reason holds for all seeds of a configuration."""
    if job.search is None or not job.search.prune or trial.method != "stepwise":
        return None
    plan = plan_for(job, store, total_tokens)
    group = next(trials for trials in plan.groups.values() if trial.name in {t.name for t in trials})
    stopped = pruned_trials(plan, store.root)
    reasons = [stopped[t.name].reason for t in group if t.name in stopped]
    return reasons[0] if reasons else reason_to_stop(group[0].settings, rungs(plan, _losses(plan, store)))


def _losses(plan: Plan, store: StageStore) -> dict[str, float]:
    """By planned stage: of what stands in its place; infinite where a trial gave up."""
    chains = replay_all(plan, store)
    stopped = (chain.trial.stages[len(chain.standing)].key for chain in chains if chain.given_up)
    passed = {key: manifest.metrics.validation_loss for key, manifest in standing_manifests(chains).items()}
    return {**dict.fromkeys(stopped, math.inf), **passed}
