"""From the blocks of a stage to an alarm, and at its end to a verdict. Pure functions of numbers.

Measured, on 3x2 digits with models of 2 and 3 layers and a
fixed schedule (D; train losses, one seed each): exact match does not recover between removals (0.31,
0.10, 0.08, 0.15, 0.14 as ten tokens go) and the run still ends at 0.95, by the four consolidation
stages after the last removal. In these the loss falls by factors of 1.6 to 2.6 a stage; in a seed
that ended at 0.18 by 1.08 to 1.5, and on the plateau of No CoT by 1.01 to 1.04. Recovery speeds up as
it goes, so a log-linear projection from its beginning came out up to twice too long. Proposed, and
to be calibrated on labelled stages before a result rests on them: every rule below and every number.

Not recovered is therefore not yet failed, whatever the schedule: ten seeds of 3x2 digits that were lost
between removals went on to the end (jobs/studies/restarts). A stage that *lags* (still learns, or is anywhere
below what answer frequencies give) passes; *stuck* is flat at that floor, or consolidation that at its pace would
take more than ten stages more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations, takewhile
from statistics import median
from typing import Literal

from orchestrator.stability.signals import Blocks, History, since_removal
from orchestrator.stability.thresholds import Expected, Thresholds


@dataclass(frozen=True)
class Alarm:
    """The reason why a stage should not go on."""

    kind: Literal["diverged", "stuck"]
    detector: Literal["A1", "A2", "B2", "B3"]
    block: int
    """The number of the block, from 1."""
    reason: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on a finished stage, in the store's words."""

    verdict: Literal["good", "suspect", "diverged", "stuck"]
    """The verdict. After ``suspect`` the chain goes on, but this stage is neither a place to restart from nor one that
    later ones are measured by."""
    reason: str = ""
    detector: str = ""


Detector = Callable[[Blocks, Expected, History, Thresholds], Alarm | None]


def recovered(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> bool:
    """Return whether the last blocks know the answer again: under ``adaptive`` the next token may go."""
    flags = _recoveries(blocks, expected, history, thresholds)
    return len(flags) >= thresholds.recovered_blocks and all(flags[-thresholds.recovered_blocks :])


def consolidated(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> bool:
    """Return whether a consolidation stage has done what it can.

    Its last blocks know the answer as well as is asked, or as a cooldown needs; or the loss has levelled off at this
    rate, and a cooldown is to come.
    """
    last, asked = blocks[-thresholds.recovered_blocks :], expected.target_exact_match
    enough = min(asked, thresholds.cooldown_from) if expected.cools_down else asked
    if len(last) == thresholds.recovered_blocks and all(block.probe_exact_match >= enough for block in last):
        return True
    window = _consolidating(blocks, expected, history, thresholds.flat_stages)
    return expected.cools_down and bool(window) and not _falls(window, expected, thresholds)


def non_finite(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """Return alarm A1: a number of the last block is infinite or not a number (R §1.5 A1)."""
    if blocks[-1].finite:
        return None
    steps = f", {blocks[-1].non_finite} of its steps" if blocks[-1].non_finite else ""
    reason = f"a loss or gradient is not finite in {_place(blocks, expected)}{steps}"
    return Alarm("diverged", "A1", len(blocks), reason)


def at_floor(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """Return alarm A2: the model knows no more than answer frequencies and does not learn, where it once knew more."""
    floor = math.log(thresholds.floor_share * expected.answer_entropy)
    window = blocks[-thresholds.floor_blocks :]
    if not _knew_more(expected, history, thresholds) or len(window) < thresholds.floor_blocks:
        return None
    if min(block.level for block in window) < floor or _falls(window, expected, thresholds):
        return None
    reason = f"{_loss(blocks, expected)} and flat; answer frequencies alone give {expected.answer_entropy:.2f}"
    return Alarm("stuck", "A2", len(blocks), reason)


def lost_again(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """Return alarm B2: recovered after the last removal, then lost for some blocks and not coming back."""
    level = _recovery_level(expected, history, thresholds)
    last = since_removal(blocks)[-thresholds.late_blocks :]
    if not _had_recovered(blocks, expected, history, thresholds) or not _is_lost(last, level, thresholds):
        return None
    if any(_recoveries(last, expected, history, thresholds)) or _falls(last, expected, thresholds):
        return None
    reason = f"{_loss(blocks, expected)}, after it had recovered to {math.exp(level):.2g}"
    return Alarm("diverged", "B2", len(blocks), reason)


def no_progress(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """Return alarm B3: at its pace over the last stages, consolidation would take many more to know the answers.

    They are known where a cooldown could begin, or at what is asked if that is less. Half as many stages are too many
    where they are stretched: a restart costs less. Looked at where a stage ends, for a model that once knew something.
    """
    if not expected.consolidation or len(blocks) < expected.planned or not _knew_more(expected, history, thresholds):
        return None
    known = min(expected.target_exact_match, thresholds.solved_from)
    window = _consolidating(blocks, expected, history, thresholds.pace_stages)
    if not window or blocks[-1].probe_exact_match >= known:
        return None
    goal = expected.loss_at(known) * thresholds.recovery_factor
    short = blocks[-1].level - math.log(goal)
    fall = max(thresholds.flat, -_slope(window) * expected.planned)
    if short <= fall * thresholds.hopeless_stages * max(0.5, 1 / expected.stretch):
        return None
    reason = f"{_loss(blocks, expected)}, {goal:.2g} needed with nothing left to remove"
    as_before = f"as over the last {thresholds.pace_stages} stages that takes {short / fall:.0f} more"
    return Alarm("stuck", "B3", len(blocks), f"{reason}: {as_before}")


_ACTING: dict[str, tuple[Detector, ...]] = {
    "hard": (non_finite,),
    "all": (non_finite, at_floor, lost_again, no_progress),
}


def judge(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """Return the first alarm at the last block, which ends the stage, or None. Call it after every block."""
    alarms = (detector(blocks, expected, history, thresholds) for detector in _ACTING[expected.rule])
    return next((alarm for alarm in alarms if alarm), None)


def gate(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Judgement:
    """Return the verdict on a stage whose last block is the last of ``blocks``.

    It passes unless there is an alarm. ``suspect``: it had recovered since its last removal and ends in a rise too
    young for B2 (a spike to exact match 0.81 from 0.99, gone a stage later, was measured in Explicit CoT).
    """
    if alarm := judge(blocks, expected, history, thresholds):
        return Judgement(alarm.kind, alarm.reason, alarm.detector)
    if expected.rule == "hard":
        return Judgement("good")
    level = _recovery_level(expected, history, thresholds)
    if _had_recovered(blocks, expected, history, thresholds) and _is_lost(blocks[-1:], level, thresholds):
        reason = f"{_loss(blocks, expected)}, after it had recovered to {math.exp(level):.2g}"
        return Judgement("suspect", reason, "B2")
    return Judgement("good")


def _knew_more(expected: Expected, history: History, thresholds: Thresholds) -> bool:
    """Return whether a good stage ended with more than answer frequencies. A model that never did lost nothing."""
    return history.best is not None and history.best < math.log(thresholds.known_share * expected.answer_entropy)


def _recovery_level(expected: Expected, history: History, thresholds: Thresholds) -> float:
    target = math.log(expected.target_loss)
    return max(target, target if history.best is None else history.best) + math.log(thresholds.recovery_factor)


def _recoveries(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> list[bool]:
    """Return for each block since the last removal whether loss or exact match is where it should be."""
    level = _recovery_level(expected, history, thresholds)
    return [b.level <= level or b.probe_exact_match >= expected.target_exact_match for b in since_removal(blocks)]


def _had_recovered(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> bool:
    flags = _recoveries(blocks, expected, history, thresholds)
    return any(all(run) for run in zip(*(flags[i:] for i in range(thresholds.recovered_blocks)), strict=False))


def _is_lost(blocks: Blocks, level: float, thresholds: Thresholds) -> bool:
    return min(block.level for block in blocks) > level + math.log(thresholds.late_factor)


def _slope(blocks: Blocks) -> float:
    """Return the slope of the log loss per block, by Theil-Sen: the median over all pairs without a removal between."""
    slopes = [
        (b.level - a.level) / (j - i)
        for (i, a), (j, b) in combinations(enumerate(blocks), 2)
        if a.removed_tokens == b.removed_tokens
    ]
    return median(slopes) if slopes else 0.0


def _falls(blocks: Blocks, expected: Expected, thresholds: Thresholds) -> bool:
    return -_slope(blocks) * expected.planned >= thresholds.flat


def _consolidating(blocks: Blocks, expected: Expected, history: History, stages: int) -> Blocks:
    """Return the last blocks with nothing left to remove, as many as so many stages have; none while there are fewer.

    A last removal at the first step of its stage makes that stage one of them.
    """
    removed, window = blocks[-1].removed_tokens, stages * expected.planned
    before = takewhile(lambda stage: stage[0].removed_tokens == removed, reversed(history.stages))
    so_far = (*chain.from_iterable([*before][::-1]), *blocks)[-window:]
    return so_far if len(so_far) == window else ()


def _place(blocks: Blocks, expected: Expected) -> str:
    return f"block {len(blocks)} of {expected.planned}"


def _loss(blocks: Blocks, expected: Expected) -> str:
    return f"answer loss {blocks[-1].probe_loss:.2f} at {_place(blocks, expected)}"
