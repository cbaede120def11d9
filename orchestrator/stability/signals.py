"""What is recorded of a stage while it trains, and what of earlier stages its judges look back on.

Its answers are looked at in spot checks, on the same few examples each time. Fields that records of old stores
have keep their names: ``probe_*`` are a spot check's. (A *probe* is a linear one, see
``method/probing/linear_probe.py``.)

Sources in this room: R = the reliability notes (``research/reliability.md``), D = ``design.md`` §8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

WORST = 1e9
"""Stands for a number that is not finite: records hold plain JSON numbers."""
_LEAST = 1e-9
_END = 5


def _plain(value: float) -> float:
    return value if math.isfinite(value) else WORST


Signal = Annotated[float, BeforeValidator(_plain)]


class Block(BaseModel):
    """A twentieth of a stage (adaptive: or a tenth of a token), measured at its end (R §1.4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    """Optimizer steps of the stage so far."""
    removed_tokens: int
    """Scheduled for removal at the spot check that ends the block."""
    probe_loss: Signal
    """Mean negative log-likelihood per answer token in the spot check: on fixed examples, no smoothing offset.
    The same tokens at every removal, so blocks of different stages can be compared."""
    probe_exact_match: Signal
    """Share of the spot check's examples whose answer is the teacher-forced arg-max as a whole."""
    train_loss: Signal
    """Median over the block's steps of the loss per learnt token."""
    train_loss_max: Signal
    """Heavy-tailed by design: 45 % of batches of 32 hold an over-removed example at λ = 4 (R §1.1)."""
    gradient_norm: Signal
    """Median before clipping."""
    gradient_norm_max: Signal
    non_finite: int
    """Steps whose loss or gradient norm was infinite or not a number."""
    update_ratio: Signal
    """Norm of the block's last update over the norm of the weights."""

    @property
    def finite(self) -> bool:
        """Whether every number of the block was one."""
        return self.non_finite == 0 and WORST not in self.__dict__.values()

    @property
    def level(self) -> float:
        """Logarithm of the spot check's loss: removals and recoveries are factors."""
        return math.log(max(self.probe_loss, _LEAST))


Blocks = tuple[Block, ...]


def since_removal(blocks: Blocks) -> Blocks:
    """The last blocks that share one number of removed tokens."""
    return tuple(takewhile(lambda block: block.removed_tokens == blocks[-1].removed_tokens, blocks[::-1]))[::-1]


@dataclass(frozen=True)
class History:
    """The blocks of the good stages a chain stands on, in order.

    A fold over their manifests, so a rewound chain has the history of where it stands now.
    """

    stages: tuple[Blocks, ...] = ()

    def grown(self, blocks: Blocks) -> History:
        """With one more good stage. A block that is not finite never enters a baseline."""
        finite = tuple(block for block in blocks if block.finite)
        return History((*self.stages, finite)) if finite else self

    @property
    def best(self) -> float | None:
        """The lowest level at which a good stage ended: the median of its last five blocks (R §1.5).

        R looks at the last good stage only; its allowance of 1.5 would then compound, to 57 over
        ten removals.
        """
        return min((median(b.level for b in since_removal(stage)[-_END:]) for stage in self.stages), default=None)
