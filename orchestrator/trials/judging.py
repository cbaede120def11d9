"""Holds a stage, while it trains and at its end, to what is expected of it: the detectors, told about the stage."""

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
"""Stands for 0 nats, where all answers are the same: detectors take its logarithm."""


@dataclass(frozen=True)
class Answers:
    """Facts about the answers in a job's training data."""

    entropy: float
    """The unigram entropy in nats."""
    tokens: int
    """The mean length in tokens."""

    @classmethod
    def of(cls, train: TokenTable, mark: int) -> Answers:
        """Return the facts about these examples. ``mark``: the tokens that stand before the answer itself."""
        return cls(max(SMALLEST_ENTROPY, answer_entropy(train, mark)), round(float(answer_tokens(train, mark).mean())))


def expected(stage: PlannedStage, trial: Trial, answers: Answers) -> Expected:
    """Return what is expected of a stage of a trial, as it is attempted."""
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
    """The detectors, told what is expected of this stage."""

    spec: StageSpec
    expected: Expected
    history: History
    thresholds: Thresholds = field(default_factory=Thresholds)

    def after_block(self, blocks: Blocks) -> Finding:
        """Return whether to end the stage, let the next token go (or end consolidation), or go on."""
        context = self.expected, self.history, self.thresholds
        if alarm := judge(blocks, *context):
            return alarm
        if self.spec.consolidation:  # a cooldown is none in what is expected: it never ends early
            done = self.expected.consolidation and consolidated(blocks, *context)
        else:
            done = recovered(blocks, *context)
        return "recovered" if done else None

    def at_end(self, trace: Trace) -> Judgement:
        """Return the verdict on the whole stage."""
        return gate(trace.blocks, self.expected, self.history, self.thresholds)
