"""The facts that a report is made of, read from the store once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from orchestrator.method.stage import RemovalPoint
from orchestrator.plan import Plan
from orchestrator.plan.grid import Settings
from orchestrator.results.cost import Cost, cost_of
from orchestrator.results.frontier import FrontierPoint, points_of
from orchestrator.results.groups import Group, groups_of
from orchestrator.results.ranking import Standing, standings
from orchestrator.results.trial_points import FailedAttempt, TrialPoints, by_trial, failed_attempts, removals
from orchestrator.store import Manifest, Pruned, StageStore, pruned_trials
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import replay_all


@dataclass(frozen=True)
class Findings:
    """A job's plan, its trials as they really went, and the points of its frontier."""

    plan: Plan
    store: StageStore
    chains: tuple[Chain, ...]
    points: tuple[FrontierPoint, ...]
    pruned: Mapping[str, Pruned]

    @classmethod
    def of(cls, plan: Plan, store: StageStore, known: Iterable[Chain] = ()) -> Findings:
        """Read whatever part of a job is committed. ``known``: chains replayed before."""
        chains = replay_all(plan, store, known)
        return cls(plan, store, chains, points_of(chains), pruned_trials(plan, store.root))

    @cached_property
    def ranked(self) -> tuple[Standing, ...]:
        """The configurations of a search, best first; empty without a search."""
        return standings(self.plan, self.points, self.pruned)

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """The records that the trials committed, failed attempts too, by stage key."""
        return {tried.stage.key: tried.manifest for chain in self.chains for tried in chain.attempts}

    @cached_property
    def trials(self) -> tuple[TrialPoints, ...]:
        """The trials that have points, in plan order."""
        return by_trial(self.points, self.chains)

    @cached_property
    def failed_attempts(self) -> tuple[FailedAttempt, ...]:
        """The failed attempts of every trial, in order."""
        return failed_attempts(self.chains)

    @cached_property
    def after_removal(self) -> dict[str, tuple[RemovalPoint, ...]]:
        """The exact match right after each removal, by trial."""
        return removals(self.chains)

    @cached_property
    def cost(self) -> Cost:
        """The cost of all trials together."""
        return cost_of(self.chains, self.pruned)

    @property
    def unfinished(self) -> int:
        """The number of trials with stages still to train."""
        return sum(chain.next is not None and chain.trial.name not in self.pruned for chain in self.chains)

    @property
    def trained_now(self) -> bool:
        """True if a live process is at a stage that one of the trials needs."""
        return any(chain.next and self.store.claimed(chain.next.key) for chain in self.chains)

    @property
    def examples(self) -> int:
        """The number of validation examples that exact match is measured on."""
        return max((manifest.metrics.examples for manifest in self.manifests.values()), default=0)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The trials by method and configuration, seeds together."""
        return groups_of(self.trials, self.examples)

    @cached_property
    def leader(self) -> Standing | None:
        """The first configuration in the ranking of a search that has something to show."""
        own = [group for group in self.groups if group.method == "stepwise"]
        return next((s for s in self.ranked if any(belongs(group, s.settings) for group in own)), None)

    @cached_property
    def shown(self) -> tuple[Group, ...]:
        """The groups of the picture: the leader of a search with its baselines, else all."""
        if self.leader is None:
            return self.groups
        return tuple(group for group in self.groups if belongs(group, self.leader.settings))

    @property
    def others(self) -> tuple[Group, ...]:
        """The configurations of a search that came off worse."""
        return tuple(group for group in self.groups if group not in self.shown and group.method == "stepwise")

    def model_folder(self, point: FrontierPoint) -> str:
        """Return where a stage's weights are, below the store."""
        return self.store.folder(self.manifests[point.stage_key]).relative_to(self.store.root).as_posix()

    def crosses(self, groups: Iterable[Group]) -> tuple[FailedAttempt, ...]:
        """Return the failed attempts of these groups that a picture has a place for: those with a spot check."""
        names = {trial.last.trial for group in groups for trial in group.trials}
        return tuple(f for f in self.failed_attempts if f.trial in names and f.exact_match is not None)


def belongs(group: Group, settings: Settings) -> bool:
    """Return whether a group is of this configuration, or a baseline that goes with it."""
    plain = {(field, "inf" if value == float("inf") else value) for field, value in settings}  # as points have it
    return set(group.settings.items()) <= plain
