"""A trial's way: the paper's loop over its stages and, after each, the judge's verdict and what follows from it.

``walk`` goes the way and trains; ``replay`` goes it again with nothing but the store. Both decide with ``proceed``,
from committed manifests alone, those of failed attempts too. So all workers of a trial decide alike, and a run that
was killed decides again what it had decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from orchestrator.plan import Plan, PlannedStage, Trial
from orchestrator.stability import GiveUp, Onward, Restart, next_move
from orchestrator.store import Manifest, StageStore
from orchestrator.trials.chain import Attempt, Chain


class Runner(Protocol):
    """The side of a walk that acts."""

    def goes_on(self) -> bool:
        """Return whether the trial is worth another stage."""
        ...

    def adopt(self, stage: PlannedStage) -> Manifest | None:
        """Return the manifest of a committed stage; None if this runner is now the one to train it."""
        ...

    def attempt(self, stage: PlannedStage, chain: Chain) -> Manifest:
        """Train a stage after what stands of ``chain``, judge it, commit it and return its manifest."""
        ...


def walk(trial: Trial, runner: Runner) -> Iterator[Chain]:
    """Take a trial from its first stage to its end. Yields its chain after every attempt."""
    chain = Chain.begin(trial)
    while (stage := chain.next) and runner.goes_on():
        manifest = runner.adopt(stage)
        if manifest is None:
            manifest = runner.attempt(stage, chain)
        chain = proceed(chain, manifest)
        yield chain


def proceed(chain: Chain, manifest: Manifest) -> Chain:
    """Return the chain once ``chain.next`` is committed, with what the restart policy decides about that attempt.

    Raises ``ValueError`` if the trial is over.
    """
    if chain.next is None:
        raise ValueError(f"{chain.trial.name} is over")
    attempt = Attempt(chain.next, manifest, chain.pace)
    facts = tuple(each.facts for each in (*chain.attempts, attempt))
    match next_move(facts, chain.trial.budget):
        case Onward() as move:
            return chain.onward(attempt, move)
        case Restart() as move:  # the next attempt starts from the weights of the last stage that still stands
            return chain.restarted(attempt, move)
        case GiveUp() as move:
            return chain.ended(attempt, move)


def replay(trial: Trial, store: StageStore) -> Chain:
    """Return the chain of a trial, from the store alone."""
    return advanced(Chain.begin(trial), store)


def advanced(chain: Chain, store: StageStore) -> Chain:
    """Return a chain with what has been committed since."""
    while (stage := chain.next) and (manifest := store.manifest(stage)):
        chain = proceed(chain, manifest)
    return chain


def replay_all(plan: Plan, store: StageStore, known: Iterable[Chain] = ()) -> tuple[Chain, ...]:
    """Return the chains of a plan's trials, in plan order. Those in ``known`` are taken from where they stand."""
    begun = {chain.trial.stages[-1].key: chain for chain in known}
    return tuple(advanced(begun.get(trial.stages[-1].key, Chain.begin(trial)), store) for trial in plan.trials)
