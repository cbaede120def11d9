"""What a job took, what sharing saved, and what restarts threw away."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.trials.chain import Attempt, Chain


@dataclass(frozen=True)
class Spent:
    """Optimizer steps, and seconds of training and evaluation."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def on(cls, attempts: Iterable[Attempt]) -> Spent:
        tried = list(attempts)
        metrics = [attempt.manifest.metrics for attempt in tried]
        return cls(sum(t.steps for t in tried), sum(m.train_seconds + m.evaluate_seconds for m in metrics))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.steps - other.steps, self.seconds - other.seconds)


@dataclass(frozen=True)
class Cost:
    """The cost of all trials together; a stage that several of them took counts once."""

    total: Spent
    shared: Spent
    """The cost on top, had each trial trained all of its stages itself."""
    lost: Spent
    """The attempts that failed, and good ones that a trial went back over."""
    planned_steps: int
    """The steps still to come, if nothing fails."""


def cost_of(chains: Sequence[Chain], pruned: Container[str]) -> Cost:
    """Return the cost of the attempts in the store, whichever job paid for them first.

    ``pruned``: names of trials that a search stopped.
    """
    taken = [tried for chain in chains for tried in chain.attempts]
    once = {tried.stage.key: tried for tried in taken}
    standing = {tried.stage.key for chain in chains for tried in chain.standing}
    to_come = {
        stage.key: stage.spec.steps
        for chain in chains
        if chain.next and chain.trial.name not in pruned
        for stage in (chain.next, *chain.trial.stages[len(chain.standing) + 1 :])
    }
    total = Spent.on(once.values())
    return Cost(
        total=total,
        shared=Spent.on(taken) - total,
        lost=Spent.on(tried for key, tried in once.items() if key not in standing),
        planned_steps=sum(to_come.values()),
    )
