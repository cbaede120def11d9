"""The numbers of the detectors, and what is expected of a stage.

R: ``research/reliability.md``; D: ``design.md`` §8 and the quickstart's recorded stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

Rule = Literal["hard", "all"]

LOSS_PER_MISS = 2.5
"""The loss of a whole answer, in nats, over -ln(exact match): 2.3 at 0.38, 2.5 at 0.81, 4.0 at 0.95 (measured, D)."""


class Thresholds(BaseModel):
    """Every number of the detectors: starting values, not validated ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    floor_share: float = 0.9
    """The share of the answers' unigram entropy from which on a loss is at the floor (A2; R §1.5)."""
    known_share: float = 0.5
    """The share of that entropy below which a good stage must have ended before A2 and B3 act (not from R): 0.012 in
    the quickstart, 0.7 and more where a tiny model learnt next to nothing."""
    floor_blocks: int = 5
    """The consecutive blocks at the floor (A2). R §1.5 has 2; 5 give a slope, and outlast the jump of a removal."""
    flat: float = 0.03
    """The nats of log loss per planned stage below which a fall is flat (A2, B2, B3). Measured (D): 0.07 to 1.0 in runs
    that ended well, 0.01 to 0.02 on the plateau of No CoT. At 0.1 a healthy quickstart was stopped."""
    flat_stages: int = 3
    """The stages over which a flat consolidation has levelled off, never before. Over one of 400 steps
    the slope's noise is 0.06 a stage by estimate, twice ``flat``; over three it is 0.01 (jobs/studies/detectors)."""
    pace_stages: int = 2
    """The consolidation stages whose slope tells how fast the loss falls (B3)."""
    hopeless_stages: float = 10.0
    """The stages to go beyond which consolidation does not get there (B3). Four runs that ended well had 1.8 to go,
    or less, after two; four that stood at an exact match of 0.03 or less had 12 to 28 after two or three
    (jobs/studies/detectors)."""
    solved_from: float = 0.7
    """B3: the exact match at which consolidation has succeeded. B3's limits were measured with it."""
    recovery_factor: float = 1.5
    """The factor of the best good stage or the target within which a loss has recovered (R §1.5 level R, without its
    3 MAD: at the end of a stage that still learns these measure the slope, not the noise)."""
    recovered_blocks: int = 2
    """The consecutive blocks that make a recovery (R §1.5 B), or that have consolidated enough."""
    cooldown_from: float = 0.8
    """The exact match that is enough to cool down from. The cooldown does the rest: with Muon on 3x2 digits it went
    from 0.69 to 0.94 in one seed and from 0.76 or more to 0.98 and above in five. At the constant rate the last tenth
    takes thousands of steps."""
    late_factor: float = 2.0
    """The factor over the recovery level beyond which a stage is lost again (B2; R §1.5 B)."""
    late_blocks: int = 3
    """The consecutive blocks for which it is lost (B2; R §1.5 B)."""


@dataclass(frozen=True)
class Expected:
    """The facts about a stage, and the demands on it, before it starts."""

    planned: int
    """The blocks of the stage."""
    rule: Rule
    """The detectors that may act. ``hard``, for trials without restarts and for baselines, which learn from a plateau:
    only numbers that are not finite alarm."""
    consolidation: bool
    """Whether nothing is left to remove and the rate is not falling. In a cooldown a flat loss says little (two false
    alarms of B3, jobs/studies/README.md)."""
    answer_entropy: float
    """The unigram entropy of the answer tokens, in nats: the loss that frequencies alone give."""
    target_loss: float
    """The spot check's loss that goes with ``target_exact_match``."""
    target_exact_match: float
    cools_down: bool
    """Whether a cooldown comes after it."""
    stretch: float = 1.0
    """Its steps over those of the stage as configured."""

    def loss_at(self, exact_match: float) -> float:
        """Return the spot check's loss that goes with another exact match than the target's."""
        return self.target_loss * math.log(exact_match) / math.log(self.target_exact_match)


def target_loss(exact_match: float, answer_tokens: int) -> float:
    """Return roughly the spot check's loss, in nats a token, that goes with an exact match.

    It is for slopes and ratios, not for verdicts.
    """
    return LOSS_PER_MISS * -math.log(exact_match) / answer_tokens
