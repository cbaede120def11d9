"""Finds committed stages by the names people type: the beginning of a key, or job, trial and a stage's number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.errors import InputError, Problem
from orchestrator.plan import Plan, Trial
from orchestrator.results.frontier import best_point, points_of
from orchestrator.store.jobs import jobs_like, saved_plan, saved_plans
from orchestrator.store.stages import StageStore
from orchestrator.trials.chain import Attempt, Chain
from orchestrator.trials.walk import replay_all

LEAST_KEY = 4
"""The fewest characters that name a stage: with fewer a typing error would ask another model."""


@dataclass(frozen=True)
class Place:
    """A stage that passed, in a trial of a saved job."""

    plan: Plan
    trial: Trial
    tried: Attempt

    @property
    def words(self) -> str:
        """The stage's name for people."""
        return self.trial.stage_words(self.tried.stage)


def find_stage(name: str, store: StageStore) -> Place:
    """Return the stage that a name means. Raises ``InputError`` with the names there are.

    ``26b16744``: the stage whose key begins so. ``quickstart``: the model to use of this job, as the report names
    it. ``quickstart:stepwise-seed0``: the last stage of a trial.
    ``quickstart:stepwise-seed0:8``: one by its number. The beginning of a trial's name is enough.
    """
    job, *rest = name.split(":")
    plan = saved_plan(job, store)
    return _of_job(name, plan, rest, store) if plan else _of_key(name, store)


def _of_key(prefix: str, store: StageStore) -> Place:
    enough = len(prefix) >= LEAST_KEY
    keys = [key for key in store.stage_keys() if key.startswith(prefix) and store.read(key)] if enough else []
    if len(keys) != 1:
        found = f"is the beginning of {len(keys)} stage keys" if keys else "is no job here, nor the key of a stage"
        fix = f"keys are in `stepwise report --json`; {jobs_like(prefix.partition(':')[0], store)}"
        raise InputError(Problem("FRK004", prefix, found, fix))
    places = [
        Place(plan, chain.trial, tried)
        for plan in saved_plans(store)
        for chain in replay_all(plan, store)
        for tried in chain.attempts
        if tried.stage.key == keys[0]
    ]
    if not places:
        raise InputError(Problem("FRK008", keys[0], "belongs to no saved job", "name another stage"))
    place = min(places, key=lambda place: place.trial.method != "stepwise")
    if not place.tried.manifest.passed:
        raise InputError(Problem("FRK005", prefix, "did not end well and has no weights", "name another stage"))
    return place


def _of_job(name: str, plan: Plan, rest: list[str], store: StageStore) -> Place:
    chains = [chain for chain in replay_all(plan, store) if chain.standing]
    best = None if rest else best_point(points_of(chains), plan.job.stability.min_exact_match)
    if not chains or not (rest or best):
        raise InputError(Problem("FRK007", name, "has no committed stage yet", f"`stepwise run {plan.job.name}`"))
    if best:
        chain = _chain(name, best.trial, chains)
        return Place(plan, chain.trial, chain.standing[best.stage])
    chain = _chain(name, rest[0], chains)
    if len(rest) == 1:
        return Place(plan, chain.trial, chain.standing[-1])
    numbers = {str(tried.stage.index): tried for tried in chain.standing}
    if rest[1:] not in [[number] for number in numbers]:
        fix = f"the trial has stages 0 to {len(numbers) - 1}"
        raise InputError(Problem("FRK004", name, f"{':'.join(rest[1:])!r} is no committed stage", fix))
    return Place(plan, chain.trial, numbers[rest[1]])


def _chain(name: str, trial: str, chains: Iterable[Chain]) -> Chain:
    by_name = {chain.trial.name: chain for chain in chains}
    meant = [trial] if trial in by_name else [known for known in by_name if trial and known.startswith(trial)]
    if len(meant) != 1:
        found = f"{trial!r} is the beginning of {len(meant)} trials" if meant else f"{trial!r} is no trial"
        raise InputError(Problem("FRK004", name, found, f"give one of {', '.join(meant or by_name)}"))
    return by_name[meant[0]]
