"""Kill a trial anywhere, run it again, hold the store to what it had said: ``python tests/faults/run.py --kills 200``.

Every case is a fault or two in forked drivers of one store, then the same command until it ends, then the
oracles of ``oracle.py``. Ends with one JSON line. ``--short``: the deterministic part of CI.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, product
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from faults.figures import PLACES, Figures  # noqa: E402
from faults.oracle import Result, leftovers, lost, result, violations  # noqa: E402
from faults.real import real_kills  # noqa: E402
from faults.walks import STAGES, Armed, Ended, Log, child, drive, say, snapshots_always  # noqa: E402

from orchestrator.store import StageStore  # noqa: E402
from orchestrator.store.fsck import check_store  # noqa: E402

RECOVERY = {"tidy.removed", "forget.manifest", "forget.done", "repair.removed", "commit.lost"}
"""Those a first run does not come to."""
FORWARD = [place for place in PLACES if place not in RECOVERY]
SILENT = {"claim.taken", "replace.written"}
"""Places where a failed write is not the stage's: the progress of a trial is for display."""
SIZES = (0, 194, 239, 811, 1_309, 3_000, 56_903, 114_391)
"""Bytes: below, between and just under the files of a stage."""
SHORT = ["commit.weights", "commit.written", "commit.linked", "commit.done", "snapshot.state", "snapshot.saved"]
"""What CI has time for."""
MOST_LIVES = 20
NOTIFY_SECONDS = 0.1
"""What telling the tracker of a stage may take; it only sets a flag."""


class Harness:
    """Runs cases and holds each to the control."""

    def __init__(self, folder: Path, figures: Figures, seconds: float) -> None:
        """After ``seconds`` no case is begun any more: what was planned and not delivered is reported as such."""
        self.folder, self.figures, self.number = folder, figures, 0
        snapshots_always()
        control = folder / "control"
        control.mkdir()
        drive(control / "store", Log(control / "log"))  # in this process: every child is born warm
        self.deadline = time.monotonic() + seconds
        self.control: Result = result(control / "store")
        if len(self.control.files) < STAGES:
            raise SystemExit(f"the control has {len(self.control.files)} stages")
        again = folder / "again"
        again.mkdir()
        self.seconds = child(lambda: drive(again / "store", Log(again / "log")), again).seconds

    def case(self, name: str, faults: Iterator[tuple[Callable[[Path, Log], None], float | None]], planned: int) -> int:
        """Deliver the faults one after the other to drivers of one store, then let one end in peace.

        Returns how many faults struck: a driver may have ended before its turn.
        """
        self.number += 1
        self.figures.planned += planned
        if time.monotonic() > self.deadline:
            return 0
        home = self.folder / f"case{self.number}"
        home.mkdir()
        log, root, delivered = Log(home / "log"), home / "store", 0
        for work, kill_after in faults:
            ended = child(partial(work, root, log), home, kill_after)
            delivered += self._delivered(ended)
            self._after_a_life(name, root, log, ended)
        for _ in range(MOST_LIVES):
            ended = child(lambda: drive(root, log), home)
            if ended.code == 0:
                break
        self._judge(name, root, log, delivered, ended)
        shutil.rmtree(home)
        return delivered

    def _delivered(self, ended: Ended) -> int:
        self.figures.struck |= set(ended.struck)
        return int(ended.killed or bool(ended.struck))

    def _after_a_life(self, name: str, root: Path, log: Log, ended: Ended) -> None:
        if not ended.killed and ended.code not in (0, 2):
            self.figures.failures.append(f"{name}: ended with {ended.code}: {ended.said[-300:]}")
        missing = lost(root, log) if root.exists() else []
        self.figures.stages_lost += len(missing)
        self.figures.failures += [f"{name}: lost {line}" for line in missing]

    def _judge(self, name: str, root: Path, log: Log, delivered: int, ended: Ended) -> None:
        figures = self.figures
        figures.cases += 1
        figures.delivered += delivered
        said = (
            violations(root, log, self.control, delivered) if ended.code == 0 else [f"never ends: {ended.said[-300:]}"]
        )
        figures.frontiers_differing += any(line.startswith(("differs", "the frontier", "never")) for line in said)
        figures.redone_twice += sum(line.startswith("redone") for line in said)
        figures.leftovers += len(leftovers(root))
        figures.begun += len(log.events("begin"))
        figures.stages += len({event["key"] for event in log.events("begin")})
        figures.failures += [f"{name}: {line}" for line in said]
        self._lives(log)

    def _lives(self, log: Log) -> None:
        """Steps that were taken twice, and seconds from a driver's start to its first step."""
        starts = log.events("start")
        steps = sorted(log.events("begin") + log.events("step"), key=lambda event: event["at"])
        reached: dict[str, int] = {}
        for event in steps:
            if event["event"] == "begin" and event["key"] in reached:
                self.figures.lost_steps.append(max(0, reached[event["key"]] - event["step"]))
            reached[event["key"]] = max(reached.get(event["key"], 0), event["step"])
        for start in starts[1:]:
            after = next((event["at"] for event in steps if event["pid"] == start["pid"]), None)
            if after is not None:
                self.figures.recovery_seconds.append(after - start["at"])


def armed(fault: Armed) -> tuple[Callable[[Path, Log], None], None]:
    return (lambda root, log: drive(root, log, fault)), None


def every_place(harness: Harness, stages: tuple[int, ...], places: list[str]) -> None:
    """These failpoints of a first run, in each of the stages."""
    for place, stage in product(places, stages):
        harness.case(f"{place} in stage {stage}", iter([armed(Armed(place, stage))]), 1)


def every_recovery(harness: Harness, stage: int, turns: int) -> None:
    """Every failpoint of a first run, then another fault at each of the first places its successor passes."""
    for place, turn in product(FORWARD, range(1, turns + 1)):
        faults = [armed(Armed(place, stage)), armed(Armed("any", turn=turn))]
        harness.case(f"{place}, then the {turn}. place after", iter(faults), 2)


def tidying(harness: Harness, stages: tuple[int, ...]) -> None:
    """Killed while it removes what a killed one left."""
    for stage in stages:
        faults = [armed(Armed("commit.written", stage)), armed(Armed("tidy.removed", stage))]
        harness.case(f"tidy in stage {stage}", iter(faults), 2)


def repairs(harness: Harness, stages: tuple[int, ...]) -> None:
    """Killed at every place of ``fsck --repair``; the loser of a race, killed before it clears up."""
    for place, stage in product(("repair.removed", "forget.manifest", "forget.done"), stages):
        faults = [(partial(_damaged, stage), None), (partial(_repair, place), None), (partial(_repair, ""), None)]
        harness.case(f"{place} at stage {stage}", iter(faults), 1)
    for stage in stages:
        harness.case(f"commit.lost at stage {stage}", iter([(partial(_race, stage), None)]), 1)


def _keys(log: Log) -> list[str]:
    return [event["key"] for event in log.events("acknowledged")]


def _damaged(stage: int, root: Path, log: Log) -> None:
    """A finished trial in which a file lies that nobody named, and a stage lost its weights' last byte."""
    quiet = Log(log.path.with_name("before"))
    drive(root, quiet)
    store = StageStore(root)
    key = _keys(quiet)[stage]
    weights = store.folder(store.read(key)) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (store.stages / _keys(quiet)[stage - 1] / "0123456789ab").mkdir()


def _repair(place: str, root: Path, log: Log) -> None:
    os.environ["STEPWISE_FAILPOINT"] = f"{place}:1:kill" if place else ""
    check_store(StageStore(root), repair=True)


def _race(stage: int, root: Path, log: Log) -> None:
    """A finished trial; another writer of the same stage comes second and dies before it removes its own."""
    from orchestrator.plan import PlannedStage
    from orchestrator.store import saved_plan
    from orchestrator.trials.walk import replay_all

    drive(root, log)
    store = StageStore(root)
    tried = replay_all(saved_plan("faults", store), store)[0].standing[stage]
    planned: PlannedStage = tried.stage
    attempt = store.begin(planned.key)
    (attempt / "model.safetensors").write_bytes(b"other weights")
    os.environ["STEPWISE_FAILPOINT"] = "commit.lost:1:kill"
    store.commit(planned, attempt, "good", tried.manifest.metrics)


def disk(harness: Harness, stages: tuple[int, ...]) -> None:
    """A write that fails at every place of a commit; an fsync that fails; files that grow to a limit and no further."""
    for place, stage, action in product(FORWARD, stages, ("ENOSPC", "EIO")):
        if place not in SILENT:
            harness.case(f"{action} at {place} in stage {stage}", iter([armed(Armed(place, stage, 1, action))]), 1)
    for turn, stage in product(range(1, 16), stages):
        harness.case(f"fsync {turn} fails in stage {stage}", iter([(partial(_failing_fsync, stage, turn), None)]), 1)
    for size, stage in product(SIZES, stages):
        harness.case(f"no file grows beyond {size} in stage {stage}", iter([(partial(_limited, stage, size), None)]), 1)
    for stage in stages:
        harness.case(f"the store vanishes after stage {stage}", iter([(partial(_vanishing, stage), None)]), 1)


def _failing_fsync(stage: int, turn: int, root: Path, log: Log) -> None:
    """From the chosen stage on, the chosen fsync says EIO."""
    fsync, calls = os.fsync, count(1)

    def failing(handle: int) -> None:
        if len(log.events("acknowledged")) >= stage and next(calls) == turn:
            os.write(2, b"failpoint fsync: EIO\n")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    os.fsync = failing
    drive(root, log)


def _limited(stage: int, size: int, root: Path, log: Log) -> None:
    """The kernel cuts every write off at a size (RLIMIT_FSIZE): real torn files, by every library's own writer."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def after(plan: object) -> None:
        if len(log.events("acknowledged")) == stage:
            os.write(2, b"failpoint limit: EFBIG\n")
            limit()

    after(None)
    drive(root, log, after=after)


def _vanishing(stage: int, root: Path, log: Log) -> None:
    """Somebody removes the store; what was acknowledged before is gone by his hand, not ours."""

    def after(plan: object) -> None:
        if len(log.events("acknowledged")) == stage + 1:
            os.write(2, b"failpoint store: removed\n")
            shutil.rmtree(root)
            log.path.unlink()

    drive(root, log, after=after)


def random_kills(harness: Harness, kills: int, seed: int) -> None:
    """SIGKILL at random times and random failpoints, one to three of them in the life of a store."""
    dice = random.Random(seed)
    harness.figures.planned += kills
    while kills > 0 and time.monotonic() < harness.deadline:
        number = min(kills, dice.randint(1, 3))
        faults = [_random_fault(dice, harness.seconds) for _ in range(number)]
        words = ", ".join("a random time" if after else "a random place" for _, after in faults)
        kills -= harness.case(f"seed {seed}, killed at {words}", iter(faults), 0)


def _random_fault(dice: random.Random, seconds: float) -> tuple[Callable[[Path, Log], None], float | None]:
    if dice.random() < 0.25:
        return armed(Armed("any", turn=dice.randint(1, 60)))
    return (lambda root, log: drive(root, log)), dice.uniform(0.02, seconds)


def outbox(harness: Harness) -> None:
    """MLflow down, killed, deaf, refusing, forgetful: every point arrives once."""
    from faults.outbox import FAULTS, deliveries

    figures = harness.figures
    figures.planned += len(FAULTS)
    figures.points_missing = figures.points_doubled = 0
    for delivery in deliveries(harness.folder):
        figures.delivered += bool(delivery.struck)
        figures.points_missing += delivery.missing
        figures.points_doubled += delivery.doubled
        say(f"MLflow {delivery.fault}: {delivery}")
        if delivery.missing or delivery.doubled or delivery.slowest_notify > NOTIFY_SECONDS:
            figures.failures.append(f"MLflow {delivery.fault}: {delivery}")


def main() -> int:
    """Figures are printed even if the run is ended by SIGTERM or Ctrl-C."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="stepwise-faults-", dir=arguments.folder))
    figures, started = Figures(), time.monotonic()
    try:
        if arguments.real:
            real_kills(figures, arguments.real, arguments.seed, arguments.seconds)
        else:
            _in_miniature(Harness(folder, figures, arguments.seconds), arguments)
    except KeyboardInterrupt:
        figures.failures.append("ended from outside")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not arguments.json:
            for line in figures.failures:
                say(line)
        document = {"seed": arguments.seed, "seconds": round(time.monotonic() - started), **figures.document()}
        print(json.dumps(document), flush=True)
    return 1 if figures.failures else 0


def _in_miniature(harness: Harness, arguments: argparse.Namespace) -> None:
    if arguments.short:
        every_place(harness, (STAGES // 2,), SHORT)
        return
    if arguments.failpoints:
        stages = (0, STAGES // 2, STAGES - 1)
        every_place(harness, stages, FORWARD)
        tidying(harness, stages)
        repairs(harness, stages)
    if arguments.recovery:
        every_recovery(harness, STAGES // 2, arguments.turns)
    if arguments.disk:
        disk(harness, (STAGES // 2,))
    if arguments.outbox:
        outbox(harness)
    random_kills(harness, arguments.kills, arguments.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="at random times and places")
    parser.add_argument("--real", type=int, default=0, help="of the real command and its Ray workers, at random times")
    parser.add_argument("--failpoints", action="store_true", help="every failpoint, in three of the stages")
    parser.add_argument("--recovery", action="store_true", help="every failpoint, then another fault while recovering")
    parser.add_argument("--disk", action="store_true", help="failing writes at every place, failing fsyncs, torn files")
    parser.add_argument("--outbox", action="store_true", help="MLflow down, killed, deaf, refusing, forgetful")
    parser.add_argument("--turns", type=int, default=6, help="of --recovery: the second fault at so many places")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case later than that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="the deterministic part that CI runs")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON line")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)  # noqa: S108
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
