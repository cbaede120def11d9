"""What a training step notices of an MLflow that is away: the driver's tracker at work beside a training worker.

The worker takes the quickstart's steps in a process of its own, as under Ray. Beside it the driver's tracker delivers
a newly committed stage: to nobody (the server is down), or to one that accepts and never answers. In between there
is nothing to deliver. The three take turns; every step is timed, evaluation is left out. The driver shares nothing
with the worker but the cores, so its CPU time over the worker's is the most that a step can lose to it, on one core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from bench import REPOSITORY, Figure, Side, arguments, finish, table
from ours import ALLOCATOR, CPU, Optimizer, Size, StageRun, StageSpec, initial_model, set_attention, torch, train_stage

sys.path.insert(0, str(REPOSITORY / "tests"))

from faults.outbox import Delivery, Proxy, commit, make_plan, running_server

from orchestrator.method.train import removal_loss
from orchestrator.store import StageStore
from orchestrator.tracking import BackgroundTracker, Tracker
from orchestrator.trials.chain import Chain

SIZE = Size((3, 2), 64)
QUIET, AWAY = "nothing to deliver", ("down", "never answers")
WAIT_SECONDS = 0.1


class Steps:
    """The training loop on one thread. Called: the seconds of each of so many steps, and the CPU time of all."""

    def __init__(self, store: Path) -> None:
        torch.set_num_threads(1)
        job, self.data = SIZE.job, SIZE.data(store)
        self.training, self.done = job.training, 0
        self.model = initial_model(job.model, self.data.tokenizer, self.data.longest, seed=0)
        set_attention(self.model, CPU, self.training)
        self.optimizer = Optimizer(self.model, self.training)

    def __call__(self, steps: int) -> tuple[list[float], float]:
        begun: list[float] = []
        cpu = time.process_time()

        def objective(*step: object):
            begun.append(time.perf_counter())
            return removal_loss(*step)

        total = self.data.total_tokens
        spec = StageSpec(seed=0, first_step=self.done, steps=steps, removed_from=0, removals=(), total_tokens=total)
        self.done += steps
        train_stage(
            StageRun(self.model, self.optimizer, spec, self.data.train, self.training, None, objective=objective)
        )
        return [after - before for before, after in pairwise(begun)], time.process_time() - cpu


class Driver:
    """The tracker with a store to deliver from and a server that can be away."""

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self.proxy, self.delivery = proxy, Delivery("away")
        plan = make_plan("away", proxy.uri, digits=(4, 4), tokens_per_stage=1.0)
        self.store, self.chain = StageStore(folder / "store"), Chain.begin(plan.trials[0])
        self.tracker = BackgroundTracker(Tracker(plan, self.store), self.delivery.said.append)
        self.tracker.start()

    def commit(self) -> None:
        self.chain = commit(self.store, self.chain, self.tracker, self.delivery)

    def settled(self) -> None:
        """Wait until the server has everything, and the tracker its rest."""
        while self._recorded() < len(self.chain.standing):
            self.tracker.notify()
            time.sleep(WAIT_SECONDS)

    def _recorded(self) -> int:
        return sum(key == "stage/exact_match" for _, key, _, _ in self.proxy.server.points("away"))

    def away(self, fault: str) -> None:
        if fault == "down":
            self.proxy.close()
        else:
            self.proxy.impose(fault)
        self.commit()

    def back(self, fault: str) -> None:
        if fault == "down":
            self.proxy.open()
        else:
            self.proxy.lift()
        self.settled()


class Turn(NamedTuple):
    """What was measured in one turn."""

    kind: str
    seconds: list[float]
    """Of each step."""
    share: float
    """CPU time of the driver's process over that of the worker's."""


def turn(kind: str, worker: Side, steps: int) -> Turn:
    before = time.process_time()
    seconds, cpu = worker(steps)
    return Turn(kind, seconds, (time.process_time() - before) / cpu)


def turns(rounds: int, steps: int) -> list[Turn]:
    found: list[Turn] = []
    with tempfile.TemporaryDirectory() as name, Side(partial(Steps, Path(name) / "data"), ALLOCATOR) as worker:
        folder = Path(name)
        with running_server(folder / "records") as server:
            proxy = Proxy(server)
            proxy.open()
            driver = Driver(folder, proxy)
            driver.commit()
            worker(steps)
            driver.settled()
            for _ in range(rounds):
                found.append(turn(QUIET, worker, steps))
                for fault in AWAY:
                    driver.away(fault)
                    found.append(turn(fault, worker, steps))
                    driver.back(fault)
            proxy.close()
    return found


def main() -> None:
    quick = arguments(__doc__).quick
    found = turns(*(2, 40) if quick else (10, 100))
    of = {kind: [one.seconds for one in found if one.kind == kind] for kind in (QUIET, *AWAY)}
    rows = [(kind, *map(_milliseconds, _spread([s for one in of[kind] for s in one]))) for kind in of]
    table("A training step, ms", ("MLflow", "p50", "p95", "p99", "slowest"), rows)
    figures = []
    for name, at in (("median", 0), ("p95", 1)):
        for kind in AWAY:
            ratios = [_spread(away)[at] / _spread(quiet)[at] for away, quiet in zip(of[kind], of[QUIET], strict=True)]
            figures.append(Figure(f"{name} step, MLflow {kind} over {QUIET}", tuple(ratios), 1.1, at_least=False))
    for kind in AWAY:
        shares = tuple(one.share for one in found if one.kind == kind)
        figures.append(Figure(f"CPU of the driver over the worker's, MLflow {kind}", shares, 0.1, at_least=False))
    finish("away", *figures, quick=quick)


def _spread(seconds: list[float]) -> tuple[float, float, float, float]:
    cuts = quantiles(seconds, n=100)
    return median(seconds), cuts[94], cuts[98], max(seconds)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


if __name__ == "__main__":
    main()
