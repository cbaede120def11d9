"""From the blocks of a stage to an alarm, and at its end to a verdict. Pure functions of numbers.

What is measured and what is proposed. Measured, on 3x2 digits with models of 2 and 3 layers and a
fixed schedule (D; train losses, one seed each): exact match does not recover between removals (0.31,
0.10, 0.08, 0.15, 0.14 as ten tokens go) and the run still ends at 0.95, by the four consolidation
stages after the last removal. In these the loss falls by factors of 1.6 to 2.6 a stage; in a seed
that ended at 0.18 by 1.08 to 1.5, and on the plateau of No CoT by 1.01 to 1.04. Recovery speeds up as
it goes, so a log-linear projection from its beginning came out up to twice too long. Proposed, and
to be calibrated on labelled stages before anyone trusts them: every rule below and every number.

Not recovered is therefore not yet failed. Under a fixed schedule a stage that *lags* (still learns,
or is anywhere below what answer frequencies give) passes; *stuck* is flat at that floor, or flat for
the whole of a consolidation stage that is far from its target. Under the adaptive schedule recovery
is what a removal is for: none within its budget of steps is stuck.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.stability.signals import Blocks, History, since_removal

LOSS_PER_MISS = 2.5
"""Loss of a whole answer over -ln(exact match): 2.3 at 0.38, 2.5 at 0.81, 4.0 at 0.95 (measured, D)."""


class Thresholds(BaseModel):
    """Every number of the detectors: starting values, not validated ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    floor_share: float = 0.9
    """A2: at the floor from this share of the answers' unigram entropy on (R §1.5)."""
    floor_blocks: int = 5
    """A2: consecutive blocks at the floor. R §1.5 has 2; 5 give a slope, and outlast the jump of a removal."""
    flat: float = 0.1
    """A2, B2, B3: a log loss that falls by less per planned stage is flat. Measured (D): 0.4 to 1.0 in a
    run that ended well, 0.06 to 0.4 in one that did not, 0.01 to 0.04 on the plateau of No CoT."""
    recovery_factor: float = 1.5
    """Recovered: loss within this factor of the best good stage or the target (R §1.5 level R, without its
    3 MAD: at the end of a stage that still learns these measure the slope, not the noise)."""
    recovered_blocks: int = 2
    """Consecutive blocks that make a recovery (R §1.5 B)."""
    patience: float = 0.25
    """B1: share of a removal's budget before its recovery is projected (R §1.5 B)."""
    slope_blocks: int = 5
    """B1: blocks of the Theil-Sen slope (R §1.5 B)."""
    extension: float = 0.5
    """B1: X, the share of a removal's budget by which it may be extended, once (R §1.5 B, §2.7)."""
    projection_factor: float = 2.0
    """B1: a projection counts as this many times too long; R §1.5 has 1, recovery was measured to speed up (D)."""
    late_factor: float = 2.0
    """B2: lost again beyond this factor over the recovery level (R §1.5 B)."""
    late_blocks: int = 3
    """B2: for this many consecutive blocks (R §1.5 B)."""
    envelope_stages: int = 8
    """C: good stages in the envelope (R §1.5 C)."""
    envelope_least: int = 3
    """C: silent at a block that fewer good stages have (ours)."""
    cusum_floor: float = 0.2
    """C: least spread of the envelope, in nats of log loss (R §1.5 C)."""
    cusum_slack: float = 0.5
    """C: what a deviation must exceed to count (R §1.5 C)."""
    cusum_cap: float = 4.0
    """C: the most that one block counts (R §1.5 C)."""
    cusum_skip: int = 2
    """C: blocks after the start of a stage that do not count (R §1.5 C)."""
    cusum_alarm: float = 24.0
    """C: h, the 99 % quantile on synthetic stable stages; 4 or 5 as in textbooks alarm on a third (R §1.5)."""
    cusum_acts: bool = False
    """C: warns only, until its rate of false alarms is measured to be below the break-even (R §2.4)."""


@dataclass(frozen=True)
class Expected:
    """What is known of a stage, and asked of it, before it starts.

    ``planned``: blocks of the stage; under ``adaptive`` the budget of one removal, in blocks.
    ``rule``: ``hard`` for trials without restarts and baselines, which learn from a plateau: only
    non-finite numbers alarm. ``consolidation``: nothing is left to remove.
    ``answer_entropy``: unigram entropy of the answer tokens, in nats: what frequencies alone give.
    """

    planned: int
    rule: Literal["hard", "fixed", "adaptive"]
    consolidation: bool
    answer_entropy: float
    target_loss: float
    target_exact_match: float


def target_loss(exact_match: float, answer_tokens: int) -> float:
    """The probe loss that goes with an exact match, roughly: for slopes and ratios, not for verdicts."""
    return LOSS_PER_MISS * -math.log(exact_match) / answer_tokens


@dataclass(frozen=True)
class Alarm:
    """Why a stage should not go on. ``block`` counts from 1."""

    kind: Literal["diverged", "stuck"]
    detector: Literal["A1", "A2", "B1", "B2", "B3", "C"]
    block: int
    reason: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on a finished stage. ``suspect``: it goes on, but is no place to restart from."""

    verdict: Literal["good", "suspect", "diverged", "stuck"]
    reason: str = ""
    detector: str = ""


Detector = Callable[[Blocks, Expected, History, Thresholds], Alarm | None]


def recovered(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> bool:
    """Whether the last blocks know the answer again: under ``adaptive`` the next token may go."""
    flags = _recoveries(blocks, expected, history, thresholds)
    return len(flags) >= thresholds.recovered_blocks and all(flags[-thresholds.recovered_blocks :])


def non_finite(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """A1: any number of a block is none (R §1.5 A1)."""
    if blocks[-1].finite:
        return None
    found = f"{blocks[-1].non_finite} steps with a loss or gradient that is not finite"
    return Alarm("diverged", "A1", len(blocks), f"{found} in {_place(blocks, expected)}")


def at_floor(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """A2: the model knows no more than answer frequencies and does not learn, where it once knew more."""
    floor = math.log(thresholds.floor_share * expected.answer_entropy)
    window = blocks[-thresholds.floor_blocks :]
    if history.best is None or history.best >= floor or len(window) < thresholds.floor_blocks:
        return None
    if min(block.level for block in window) < floor or not _is_flat(window, expected, thresholds):
        return None
    reason = f"{_loss(blocks, expected)} and flat; answer frequencies alone give {expected.answer_entropy:.2f}"
    return Alarm("stuck", "A2", len(blocks), reason)


def too_slow(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """B1: at the slope of its last blocks a removal does not recover within its budget and extension."""
    own = since_removal(blocks)
    if history.best is None or any(_recoveries(blocks, expected, history, thresholds)):
        return None
    level = _recovery_level(expected, history, thresholds)
    for count in (len(own) - 1, len(own)):
        left = expected.planned - count + thresholds.extension * expected.planned
        if count < thresholds.patience * expected.planned:
            return None
        if _blocks_needed(own[:count], level, thresholds) <= thresholds.projection_factor * left:
            return None
    return Alarm("stuck", "B1", len(blocks), _projection(blocks, level, expected, thresholds))


def lost_again(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """B2: recovered after the last removal, then lost for some blocks and not coming back."""
    flags = _recoveries(blocks, expected, history, thresholds)
    last = since_removal(blocks)[-thresholds.late_blocks :]
    level = _recovery_level(expected, history, thresholds)
    runs = zip(*(flags[i:] for i in range(thresholds.recovered_blocks)), strict=False)
    if not any(map(all, runs)) or any(flags[-thresholds.late_blocks :]):
        return None
    if min(b.level for b in last) <= level + math.log(thresholds.late_factor) or _falls(last, expected, thresholds):
        return None
    reason = f"{_loss(blocks, expected)}, after it had recovered to {math.exp(level):.2g}"
    return Alarm("diverged", "B2", len(blocks), reason)


def no_progress(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """B3: a whole consolidation stage, flat, and far from what was asked."""
    flat = expected.consolidation and len(blocks) >= expected.planned and _is_flat(blocks, expected, thresholds)
    if not flat or any(_recoveries(blocks, expected, history, thresholds)):
        return None
    needed = math.exp(_recovery_level(expected, history, thresholds))
    reason = f"{_loss(blocks, expected)}, needed {needed:.2g}: flat for a stage with nothing left to remove"
    return Alarm("stuck", "B3", len(blocks), reason)


def off_envelope(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """C: CUSUM of the log loss against earlier good stages at the same block, from 0 at every removal."""
    total, stages = 0.0, history.stages[-thresholds.envelope_stages :]
    for at, block in enumerate(blocks):
        if at and block.removed_tokens != blocks[at - 1].removed_tokens:
            total = 0.0
        levels = [stage[at].level for stage in stages if at < len(stage)]
        if at < thresholds.cusum_skip or len(levels) < thresholds.envelope_least:
            continue
        centre = median(levels)
        spread = max(1.4826 * median(abs(level - centre) for level in levels), thresholds.cusum_floor)
        deviation = min((block.level - centre) / spread, thresholds.cusum_cap)
        total = max(0.0, total + deviation - thresholds.cusum_slack)
    if total <= thresholds.cusum_alarm:
        return None
    reason = f"{_loss(blocks, expected)}: CUSUM {total:.1f} against {len(stages)} good stages, limit "
    return Alarm("diverged", "C", len(blocks), f"{reason}{thresholds.cusum_alarm:g}")


_ACTING: dict[str, tuple[Detector, ...]] = {
    "hard": (non_finite,),
    "fixed": (non_finite, at_floor, lost_again, no_progress),
    "adaptive": (non_finite, at_floor, too_slow, lost_again),
}


def judge(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Alarm | None:
    """The first alarm at the last block that ends the stage, or None. Call it after every block."""
    acting = _ACTING[expected.rule] + ((off_envelope,) if thresholds.cusum_acts and expected.rule != "hard" else ())
    alarms = (detector(blocks, expected, history, thresholds) for detector in acting)
    return next((alarm for alarm in alarms if alarm), None)


def extension(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> int:
    """Blocks by which to extend, once, a removal whose budget is spent; 0 if they would not help."""
    if history.best is None or recovered(blocks, expected, history, thresholds):
        return 0
    extra = thresholds.extension * expected.planned
    level = _recovery_level(expected, history, thresholds)
    needed = _blocks_needed(since_removal(blocks), level, thresholds)
    return math.ceil(extra) if needed <= thresholds.projection_factor * extra else 0


def gate(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> Judgement:
    """The verdict on a stage whose last block is the last of ``blocks``.

    A fixed schedule passes a stage unless an alarm acts; the adaptive one only if it has recovered.
    ``suspect`` is a stage that passes under a warning of C.
    """
    if alarm := judge(blocks, expected, history, thresholds):
        return Judgement(alarm.kind, alarm.reason, alarm.detector)
    if expected.rule == "adaptive" and not recovered(blocks, expected, history, thresholds):
        level = _recovery_level(expected, history, thresholds)
        return Judgement("stuck", f"budget spent: {_projection(blocks, level, expected, thresholds)}", "B1")
    warning = None if expected.rule == "hard" else off_envelope(blocks, expected, history, thresholds)
    return Judgement("suspect", warning.reason, warning.detector) if warning else Judgement("good")


def _recovery_level(expected: Expected, history: History, thresholds: Thresholds) -> float:
    target = math.log(expected.target_loss)
    return max(target, target if history.best is None else history.best) + math.log(thresholds.recovery_factor)


def _recoveries(blocks: Blocks, expected: Expected, history: History, thresholds: Thresholds) -> list[bool]:
    """Per block since the last removal, whether loss or exact match is where it should be."""
    level = _recovery_level(expected, history, thresholds)
    return [b.level <= level or b.probe_exact_match >= expected.target_exact_match for b in since_removal(blocks)]


def _slope(blocks: Blocks) -> float:
    """Theil-Sen: the median slope of the log loss over all pairs, per block."""
    pairs = combinations(enumerate(block.level for block in blocks), 2)
    return median((b - a) / (j - i) for (i, a), (j, b) in pairs) if len(blocks) > 1 else 0.0


def _falls(blocks: Blocks, expected: Expected, thresholds: Thresholds) -> bool:
    return -_slope(blocks) * expected.planned >= thresholds.flat


def _is_flat(blocks: Blocks, expected: Expected, thresholds: Thresholds) -> bool:
    return not _falls(blocks, expected, thresholds)


def _blocks_needed(blocks: Blocks, level: float, thresholds: Thresholds) -> float:
    """Until the log loss is at ``level``, if it goes on as over its last blocks."""
    slope = _slope(blocks[-thresholds.slope_blocks :])
    distance = blocks[-1].level - level
    return 0.0 if distance <= 0 else distance / -slope if slope < 0 else math.inf


def _place(blocks: Blocks, expected: Expected) -> str:
    return f"block {len(blocks)} of {expected.planned}"


def _loss(blocks: Blocks, expected: Expected) -> str:
    return f"answer loss {blocks[-1].probe_loss:.2f} at {_place(blocks, expected)}"


def _projection(blocks: Blocks, level: float, expected: Expected, thresholds: Thresholds) -> str:
    needed = _blocks_needed(since_removal(blocks), level, thresholds)
    outlook = "it does not fall" if math.isinf(needed) else f"at this slope it would take {needed:.0f} more blocks"
    return f"{_loss(blocks, expected)}, needed {math.exp(level):.2g}: {outlook}"
