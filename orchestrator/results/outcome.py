"""Whether a job internalized what it was to: the question that report, terminal and MLflow open with. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator import labels
from orchestrator.method.stage import StageMetrics
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import HALF
from orchestrator.results.ranking import of_configuration
from orchestrator.trials.chain import Attempt, Chain

QUESTION = "Did it internalize?"

Answer = Literal["yes", "not yet", "no"]

FALLS = 0.97
"""A validation loss that is this share of the stage before's, or less, still falls: the detectors' rate of flatness."""
NOISE = 2.0
"""Standard errors of exact match by which a stage has to better the one before."""


@dataclass(frozen=True)
class Outcome:
    """How a job, or one trial of it, ended."""

    answer: Answer
    detail: str
    """The numbers behind the answer, in one clause."""
    command: str = ""
    """The command that goes on from here, where there is one."""
    arrived: int = 0
    """The trials that internalized."""
    trials: int = 1

    @property
    def value(self) -> str:
        """The answer as a headline."""
        if 0 < self.arrived < self.trials:
            return f"In {self.arrived} of {labels.count(self.trials, 'trial')}"
        return self.answer.capitalize()

    @property
    def line(self) -> str:
        """The question with its answer, for a terminal and for MLflow's note."""
        return f"{QUESTION} {self.value}: {self.detail}"


def outcome_of(findings: Findings) -> Outcome | None:
    """Return how the job's stepwise trials ended, or those of ICoT-KD where there are none.

    A search is answered by its leading configuration. None for a job of baselines alone, and before anything stands.
    """
    method = "stepwise" if "stepwise" in findings.plan.job.methods else "icot_kd"
    plan = findings.plan
    if findings.leader:
        plan = of_configuration(plan, findings.leader.settings)
    names = {trial.name for trial in plan.trials if trial.method == method}
    chains = [c for c in findings.chains if c.trial.name in names and c.trial.name not in findings.pruned]
    if not any(chain.standing for chain in chains):
        return None
    outcomes = [_of_trial(chain) for chain in chains]
    return outcomes[0] if len(outcomes) == 1 else _together(outcomes, chains)


def _of_trial(chain: Chain) -> Outcome:
    """How one trial ended: by its last standing stage, and how it came there."""
    job, asked = chain.trial.job, chain.trial.job.stability.min_exact_match
    answering = [attempt for attempt in chain.standing if attempt.stage.spec.answers]
    if not answering:
        return Outcome("not yet", "no stage stands yet", f"stepwise run {job.name}")
    last = answering[-1].manifest.metrics
    whole = f"all {last.total_tokens} CoT tokens removed"
    if last.removed_tokens == last.total_tokens and last.exact_match >= asked:
        return Outcome("yes", f"exact match {labels.exact(last.exact_match)} with {whole}", arrived=1)
    so_far = f"{labels.exact(last.exact_match)} with {_removed(answering[-1])}"
    if chain.next:
        return Outcome("not yet", f"still training: {so_far}", f"stepwise run {job.name}")
    goal = f"{asked:g} asked"
    before = [a.manifest.metrics for a in answering[:-1] if a.manifest.metrics.removed_tokens == last.total_tokens]
    if last.removed_tokens == last.total_tokens and not chain.given_up:
        if not before or _still_rises(before[-1], last):
            rose = f", {labels.exact(before[-1].exact_match)} a stage before" if before else ""
            return Outcome("not yet", f"still rising: {so_far}{rose}; {goal}", _longer(chain))
        if last.exact_match >= HALF:
            return Outcome("no", f"levelled off: {so_far}; {goal}", _slower(chain))
    return Outcome("no", f"{_lost(answering)}; {goal}{_tried(chain)}", _slower(chain))


def _together(outcomes: Sequence[Outcome], chains: Sequence[Chain]) -> Outcome:
    """One answer for several trials: the best of those that did not arrive says how to go on."""
    arrived = [chain for chain, outcome in zip(chains, outcomes, strict=True) if outcome.answer == "yes"]
    ends = sorted(chain.standing[-1].manifest.metrics.exact_match for chain in arrived)
    parts = []
    if ends:
        total = chains[0].trial.stages[0].spec.total_tokens
        parts.append(f"exact match {labels.exact(ends[0])} to {labels.exact(ends[-1])} with all {total} tokens removed")
    short = {"not yet": [o for o in outcomes if o.answer == "not yet"], "no": [o for o in outcomes if o.answer == "no"]}
    for answer, of_it in short.items():
        if of_it:
            parts.append(f"{len(of_it)} {answer} ({of_it[0].detail})")
    missed = short["not yet"] or short["no"]
    return Outcome(
        "yes" if not missed else "not yet" if short["not yet"] else "no",
        "; ".join(parts),
        missed[0].command if missed else "",
        arrived=len(arrived),
        trials=len(outcomes),
    )


def _removed(attempt: Attempt) -> str:
    metrics = attempt.manifest.metrics
    if metrics.removed_tokens == metrics.total_tokens:
        return f"all {metrics.total_tokens} CoT tokens removed"
    return f"{metrics.removed_tokens} of {metrics.total_tokens} CoT tokens removed"


def _still_rises(before: StageMetrics, last: StageMetrics) -> bool:
    """Whether the last stage was better than the one before it, by its loss or beyond the noise of its accuracy."""
    share = last.exact_match
    noise = NOISE * math.sqrt(share * (1 - share) / last.examples)
    return last.validation_loss <= FALLS * before.validation_loss or share - before.exact_match > noise


def _lost(answering: Sequence[Attempt]) -> str:
    """Where the trial was lost: the first stage after the last one that got half of the answers right."""
    right = [i for i, attempt in enumerate(answering) if attempt.manifest.metrics.exact_match >= HALF]
    if not right:
        return "it never got half of the answers right, not with its whole CoT either"
    known = answering[right[-1]]
    if right[-1] + 1 == len(answering):
        return f"{labels.exact(known.manifest.metrics.exact_match)} with {_removed(known)}, and no further"
    lost = answering[right[-1] + 1]
    return (
        f"lost with {_removed(lost)}: {labels.exact(lost.manifest.metrics.exact_match)} there, "
        f"{labels.exact(known.manifest.metrics.exact_match)} with {known.manifest.metrics.removed_tokens}"
    )


def _tried(chain: Chain) -> str:
    if not chain.restarts:
        return ""
    return f"; tried: {labels.count(chain.restarts, 'restart')}, the last {chain.failures[-1].then}"


def _longer(chain: Chain) -> str:
    """The command that consolidates twice as long. Stages before the cooldown are adopted."""
    stages = chain.trial.job.schedule.consolidation_stages
    return f"stepwise run {chain.trial.job.name} schedule.consolidation_stages={max(2, 2 * stages)}"


def _slower(chain: Chain) -> str:
    """The command that removes at half the pace. Stages before the first removal are adopted."""
    pace = chain.trial.job.schedule.tokens_per_stage / 2
    return f"stepwise run {chain.trial.job.name} schedule.tokens_per_stage={pace:g}"
