"""Says whether a job internalized its CoT: report, terminal and MLflow open with it. Pure."""

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
from orchestrator.trials.chain import Chain

QUESTION = "Did it internalize?"

FALLS = 0.97
"""A validation loss that is this share of the stage before's, or less, still falls: the detectors' rate of flatness."""
NOISE = 2.0
"""The standard errors of exact match by which a stage has to better the one before."""


@dataclass(frozen=True)
class Outcome:
    """The end of a job, or of one of its trials."""

    answer: Literal["yes", "not yet", "no"]
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
    return outcomes[0] if len(outcomes) == 1 else _together(chains, outcomes)


def _of_trial(chain: Chain) -> Outcome:
    """Return how one trial ended: by its last standing stage, and by how it came there."""
    job, asked = chain.trial.job, chain.trial.job.stability.min_exact_match
    ends = _ends(chain)
    if not ends:
        return Outcome("not yet", "no stage stands yet", f"stepwise run {job.name}")
    last = ends[-1]
    if last.removed_tokens == last.total_tokens and last.exact_match >= asked:
        return Outcome("yes", f"exact match {_with(last)}", arrived=1)
    if chain.next:
        return Outcome("not yet", f"still training: {_with(last)}", f"stepwise run {job.name}")
    goal = f"{asked:g} asked"
    if chain.trial.method != "stepwise":  # the commands below are of the schedule, which ICoT-KD has not
        return Outcome("no", f"{_with(last)}; {goal}")
    # Twice the consolidation adopts the stages before the cooldown, half the pace those before the first removal.
    longer = f"stepwise run {job.name} schedule.consolidation_stages={max(2, 2 * job.schedule.consolidation_stages)}"
    slower = f"stepwise run {job.name} schedule.tokens_per_stage={job.schedule.tokens_per_stage / 2:g}"
    if last.removed_tokens == last.total_tokens and not chain.given_up:
        before = next((end for end in ends[-2::-1] if end.removed_tokens == end.total_tokens), None)
        if before is None:
            return Outcome("not yet", f"nothing consolidated: {_with(last)}; {goal}", longer)
        if _still_rises(before, last):
            rose = f"{labels.exact(before.exact_match)} a stage before"
            return Outcome("not yet", f"still rising: {_with(last)}, {rose}; {goal}", longer)
        if last.exact_match >= HALF:
            return Outcome("no", f"levelled off: {_with(last)}; {goal}", slower)
    tried = ""
    if chain.restarts:
        tried = f"; tried: {labels.count(chain.restarts, 'restart')}, the last {chain.failures[-1].then}"
    knew = max(end.exact_match for end in ends) >= HALF
    learn_first = f"stepwise run {job.name} schedule.pretrain_steps={2 * chain.trial.stages[0].spec.steps}"
    return Outcome("no", f"{_lost(ends)}; {goal}{tried}", slower if knew else learn_first)


def _together(chains: Sequence[Chain], outcomes: Sequence[Outcome]) -> Outcome:
    """Return one answer for several trials: the best of those that fell short says how to go on."""
    by_end = sorted(zip(chains, outcomes, strict=True), key=lambda pair: _last_exact_match(pair[0]), reverse=True)
    arrived = [_last_exact_match(chain) for chain, outcome in by_end if outcome.answer == "yes"]
    not_yet = [outcome for _, outcome in by_end if outcome.answer == "not yet"]
    no = [outcome for _, outcome in by_end if outcome.answer == "no"]
    parts = []
    if arrived:
        best, worst, total = labels.exact(arrived[0]), labels.exact(arrived[-1]), _ends(chains[0])[-1].total_tokens
        span = best if best == worst else f"{worst} to {best}"
        parts.append(f"exact match {span} with all {total} CoT tokens removed")
    for short, words in ((not_yet, "not yet"), (no, "did not")):
        if short:
            of_all = len(short) == len(outcomes)
            number = labels.count(len(short), "trial") if of_all else f"{len(short)} {words}"
            parts.append(f"{number}, {'the best of them ' * (len(short) > 1)}{short[0].detail}")
    short = not_yet or no
    return Outcome(
        short[0].answer if short else "yes",
        "; ".join(parts),
        short[0].command if short else "",
        arrived=len(arrived),
        trials=len(outcomes),
    )


def _ends(chain: Chain) -> list[StageMetrics]:
    """Return what was measured at the end of the standing stages, but for those whose model does not answer alone."""
    return [attempt.manifest.metrics for attempt in chain.standing if attempt.stage.spec.answers]


def _last_exact_match(chain: Chain) -> float:
    ends = _ends(chain)
    return ends[-1].exact_match if ends else 0.0


def _with(end: StageMetrics) -> str:
    """Return exact match and removed tokens in words."""
    every = end.removed_tokens == end.total_tokens
    removed = f"all {end.total_tokens}" if every else f"{end.removed_tokens} of {end.total_tokens}"
    return f"{labels.exact(end.exact_match)} with {removed} CoT tokens removed"


def _still_rises(before: StageMetrics, last: StageMetrics) -> bool:
    """Return whether a stage was better than the one before it, by its loss or beyond the noise of its accuracy."""
    share = last.exact_match
    noise = NOISE * math.sqrt(share * (1 - share) / last.examples)
    return last.validation_loss <= FALLS * before.validation_loss or share - before.exact_match > noise


def _lost(ends: Sequence[StageMetrics]) -> str:
    """Say where a trial was lost: after the last stage that got half of the answers right."""
    right = [number for number, end in enumerate(ends) if end.exact_match >= HALF]
    if not right:
        return "never half of the answers right, not with the whole CoT either"
    known = ends[right[-1]]
    if known is ends[-1]:
        return f"{_with(known)}, and no further"
    return f"lost: {_with(ends[right[-1] + 1])}, {labels.exact(known.exact_match)} with {known.removed_tokens}"
