"""What a stage is held to, and the detectors that hold it to that while it trains and at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.method.blocks import Finding
from orchestrator.method.course import Trace
from orchestrator.method.evaluate import answer_entropy, answer_tokens
from orchestrator.method.stage import StageSpec
from orchestrator.method.tokens import TokenTable
from orchestrator.method.train import block_steps
from orchestrator.plan import PlannedStage, Trial
from orchestrator.stability import (
    Blocks,
    Expected,
    History,
    Judgement,
    Thresholds,
    consolidated,
    gate,
    judge,
    recovered,
    target_loss,
)

SMALLEST_ENTROPY = 1e-9
"""Stands for none, where all answers are the same: detectors take its logarithm."""


@dataclass(frozen=True)
class Answers:
    """What the training data say about a job's answers: unigram entropy in nats, and mean length in tokens."""

    entropy: float
    tokens: int

    @classmethod
    def of(cls, train: TokenTable, mark: int) -> Answers:
        return cls(max(SMALLEST_ENTROPY, answer_entropy(train, mark)), round(float(answer_tokens(train, mark).mean())))


def expected(stage: PlannedStage, trial: Trial, answers: Answers) -> Expected:
    """What is asked of a stage of a trial, as it is tried."""
    spec, asked = stage.spec, trial.job.stability.min_exact_match
    return Expected(
        planned=-(-spec.steps // block_steps(spec)),
        rule=trial.rule(spec),
        consolidation=spec.consolidation and spec.rate_to == spec.rate_from,
        answer_entropy=answers.entropy,
        target_loss=target_loss(asked, answers.tokens),
        target_exact_match=asked,
        cools_down=trial.job.schedule.cooldown_stages > 0,
        stretch=spec.steps / trial.stages[stage.index].spec.steps,
    )


@dataclass(frozen=True)
class StageJudge:
    """The detectors, told what this stage is held to."""

    spec: StageSpec
    expected: Expected
    history: History
    thresholds: Thresholds = field(default_factory=Thresholds)

    def after_block(self, blocks: Blocks) -> Finding:
        return judge(blocks, *self._context) or ("recovered" if self._recovered(blocks) else None)

    def at_end(self, trace: Trace) -> Judgement:
        return gate(trace.blocks, *self._context)

    def _recovered(self, blocks: Blocks) -> bool:
        """Whether an adaptive stage can go on, or end. A cooldown never ends early."""
        if self.spec.consolidation:
            return self.expected.consolidation and consolidated(blocks, *self._context)
        return recovered(blocks, *self._context)

    @property
    def _context(self) -> tuple[Expected, History, Thresholds]:
        return self.expected, self.history, self.thresholds
