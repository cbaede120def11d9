"""The numbers of the detectors, and what a stage is held to.

R: ``research/reliability.md``; D: ``design.md`` §8 and the quickstart's recorded stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

Rule = Literal["hard", "all"]

LOSS_PER_MISS = 2.5
"""Loss of a whole answer over -ln(exact match): 2.3 at 0.38, 2.5 at 0.81, 4.0 at 0.95 (measured, D)."""


class Thresholds(BaseModel):
    """Every number of the detectors: starting values, not validated ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    floor_share: float = 0.9
    """A2: at the floor from this share of the answers' unigram entropy on (R §1.5)."""
    known_share: float = 0.5
    """A2, B3: only for a model that once ended a good stage below this share of it (ours): 0.012 in the
    quickstart, 0.7 and more where a tiny model learnt next to nothing."""
    floor_blocks: int = 5
    """A2: consecutive blocks at the floor. R §1.5 has 2; 5 give a slope, and outlast the jump of a removal."""
    flat: float = 0.03
    """A2, B2, B3: a log loss that falls by less per planned stage is flat. Measured (D): 0.07 to 1.0 in
    runs that ended well, 0.01 to 0.02 on the plateau of No CoT. At 0.1 a healthy quickstart was stopped."""
    flat_stages: int = 3
    """Consolidation has levelled off when it is flat over so many stages, never before. Over one of 400 steps
    the slope's noise is 0.06 a stage by estimate, twice ``flat``; over three it is 0.01 (jobs/studies/detectors)."""
    pace_stages: int = 2
    """B3: consolidation stages whose slope tells how fast the loss falls."""
    hopeless_stages: float = 10.0
    """B3: more of them to go, and it does not get there. Four runs that ended well had 1.8 to go, or less, after
    two; four that stood at an exact match of 0.03 or less had 12 to 28 after two or three (jobs/studies/detectors)."""
    recovery_factor: float = 1.5
    """Recovered: loss within this factor of the best good stage or the target (R §1.5 level R, without its
    3 MAD: at the end of a stage that still learns these measure the slope, not the noise)."""
    recovered_blocks: int = 2
    """Consecutive blocks that make a recovery (R §1.5 B), or that have consolidated enough."""
    cooldown_from: float = 0.7
    """Exact match that is enough to cool down from: the cooldown does the rest (0.48 to 0.99 in the quickstart,
    0.84 to 1.00 in another seed), while at the constant rate the last tenth takes thousands of steps."""
    late_factor: float = 2.0
    """B2: lost again beyond this factor over the recovery level (R §1.5 B)."""
    late_blocks: int = 3
    """B2: for this many consecutive blocks (R §1.5 B)."""


@dataclass(frozen=True)
class Expected:
    """What is known of a stage, and asked of it, before it starts.

    ``planned``: blocks of the stage. ``rule``: ``hard`` for trials without restarts and baselines, which learn
    from a plateau: only non-finite numbers alarm. ``consolidation``: nothing is left to remove, and the rate is
    not falling: in a cooldown a flat loss says little (two false alarms of B3, jobs/studies/README.md).
    ``cools_down``: a cooldown comes after it.
    ``stretch``: its steps over those of the stage as configured.
    ``answer_entropy``: unigram entropy of the answer tokens, in nats: what frequencies alone give.
    """

    planned: int
    rule: Rule
    consolidation: bool
    answer_entropy: float
    target_loss: float
    target_exact_match: float
    cools_down: bool
    stretch: float = 1.0

    def loss_at(self, exact_match: float) -> float:
        """The spot check's loss that goes with another exact match than the target's."""
        return self.target_loss * math.log(exact_match) / math.log(self.target_exact_match)


def target_loss(exact_match: float, answer_tokens: int) -> float:
    """The spot check's loss that goes with an exact match, roughly: for slopes and ratios, not for verdicts."""
    return LOSS_PER_MISS * -math.log(exact_match) / answer_tokens
