"""The signals that are recorded of a stage while it trains, and those of earlier stages that its judges look back on.

Spot checks look at its answers, on the same few examples each time. Fields that records of old stores have keep their
names: ``probe_*`` are a spot check's. (A linear probe is another thing, see ``method/probing/linear_probe.py``.)

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
"""The least loss whose logarithm is taken."""
_END = 5
"""The blocks at the end of a stage that tell how it ended."""


def _plain(value: float) -> float:
    return value if math.isfinite(value) else WORST


Signal = Annotated[float, BeforeValidator(_plain)]


class Block(BaseModel):
    """The signals of a twentieth of a stage (adaptive: or a tenth of a token), measured at its end (R §1.4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    """The optimizer steps of the stage so far."""
    removed_tokens: int
    """The CoT tokens scheduled for removal at the spot check that ends the block."""
    probe_loss: Signal
    """The spot check's mean negative log-likelihood per answer token, in nats: fixed examples, no smoothing offset.
    The same tokens at every removal, so blocks of different stages can be compared."""
    probe_exact_match: Signal
    """The share of its examples whose answer is the teacher-forced arg-max as a whole."""
    train_loss: Signal
    """The median over the block's steps of the loss per learnt token, in nats."""
    train_loss_max: Signal
    """The highest of them, heavy-tailed by design: at λ = 4, 45 % of batches of 32 hold an over-removed
    example (R §1.1)."""
    gradient_norm: Signal
    """The median norm before clipping."""
    gradient_norm_max: Signal
    """The highest of them."""
    non_finite: int
    """The steps whose loss or gradient norm was infinite or not a number."""
    update_ratio: Signal
    """The norm of the block's last update over the norm of the weights."""

    @property
    def finite(self) -> bool:
        """Return whether every number of the block was one."""
        return self.non_finite == 0 and WORST not in self.__dict__.values()

    @property
    def level(self) -> float:
        """Return the logarithm of the spot check's loss: removals and recoveries are factors."""
        return math.log(max(self.probe_loss, _LEAST))


Blocks = tuple[Block, ...]


def since_removal(blocks: Blocks) -> Blocks:
    """Return the last blocks that share one number of removed tokens."""
    return tuple(takewhile(lambda block: block.removed_tokens == blocks[-1].removed_tokens, blocks[::-1]))[::-1]


@dataclass(frozen=True)
class History:
    """The blocks of the good stages a chain stands on, in order.

    A fold over their manifests, so a rewound chain has the history of where it stands now.
    """

    stages: tuple[Blocks, ...] = ()

    def grown(self, blocks: Blocks) -> History:
        """Return the history with one more good stage, without its blocks that are not finite."""
        finite = tuple(block for block in blocks if block.finite)
        return History((*self.stages, finite)) if finite else self

    @property
    def best(self) -> float | None:
        """Return the lowest level at which a good stage ended: the median of its last five blocks (R §1.5).

        R looks at the last good stage only; its allowance of 1.5 would then compound, to 57 over
        ten removals.
        """
        return min((median(b.level for b in since_removal(stage)[-_END:]) for stage in self.stages), default=None)
