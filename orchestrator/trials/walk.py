"""A trial's way: adopt a stage or run it, and go on from its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from orchestrator.plan import PlannedStage, Trial
from orchestrator.store import Manifest
from orchestrator.trials.chain import Chain


class Runner(Protocol):
    """What a walk needs: what is committed, a way to run what is not, and whether to go on at all."""

    def goes_on(self) -> bool: ...

    def committed(self, stage: PlannedStage) -> Manifest | None: ...

    def run(self, stage: PlannedStage, chain: Chain) -> Manifest: ...


def walk(trial: Trial, runner: Runner) -> Iterator[Chain]:
    """Take a trial through its attempts: adopt what is committed, run what is not, go back after a failure.

    Every decision is the chain's and rests on manifests alone, so all workers decide alike. Ends
    between two stages when the trial is not worth going on with.
    """
    chain = Chain.begin(trial)
    while (stage := chain.next) and runner.goes_on():
        chain = chain.grown(runner.committed(stage) or runner.run(stage, chain))
        yield chain
