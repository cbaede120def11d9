"""Which trials have something left to do, and which of them begin."""

from __future__ import annotations

from collections.abc import Container, Iterable

from orchestrator.plan import Trial
from orchestrator.trials.chain import Chain


def open_chains(chains: Iterable[Chain], pruned: Container[str]) -> list[Chain]:
    """Return the trials with a stage left to run: not all stand, not given up, not ``pruned`` (by name)."""
    return [chain for chain in chains if chain.next and chain.trial.name not in pruned]


def in_order(open_chains: Iterable[Chain]) -> list[Trial]:
    """Return the trials longest first, but last all those that need a stage which an earlier one is about to train.

    They would only hold a core and wait for it.
    """
    leading: dict[str, Trial] = {}
    following = []
    for chain in sorted(open_chains, key=lambda chain: (-chain.trial.cot_token_steps, -chain.trial.steps)):
        if chain.next is None:
            continue
        if chain.next.key in leading:
            following.append(chain.trial)
        else:
            leading[chain.next.key] = chain.trial
    return [*leading.values(), *following]
