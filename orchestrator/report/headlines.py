"""The six questions a report is opened with, each answered in a line or two."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from orchestrator import labels
from orchestrator.plan.grid import symbols
from orchestrator.results.cost import Spent
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint, best_point
from orchestrator.results.groups import Group, MeanPoint
from orchestrator.results.intervals import wilson
from orchestrator.results.outcome import QUESTION, Outcome, outcome_of
from orchestrator.results.winners import full_cot_rates


class Headline(NamedTuple):
    """``value`` in large letters, ``detail`` below it, ``code`` to copy."""

    question: str
    value: str
    detail: str
    code: str = ""


def headlines(findings: Findings) -> tuple[Headline, ...]:
    """Did it internalize, which model, how fast, how sure, what went wrong, what it cost."""
    outcome = outcome_of(findings)
    first = (Headline(QUESTION, outcome.value, outcome.detail, outcome.command),) if outcome else ()
    pick = best_point(findings.points, findings.plan.job.stability.min_exact_match)
    if pick is None:
        return (*first, _trouble(findings, outcome), _cost(findings))
    return (
        *first,
        _model(findings, pick),
        _speed(findings, pick),
        _certainty(findings, pick),
        _trouble(findings, outcome),
        _cost(findings),
    )


def _model(findings: Findings, pick: FrontierPoint) -> Headline:
    left = "no CoT left" if pick.removed_tokens == pick.total_tokens else _removed(pick)
    settings = "".join(f"{part}, " for part in [symbols(tuple(pick.settings.items()))] if part)
    detail = f"exact match with {left}: {labels.LABELS[pick.method]}, {settings}seed {pick.seed}, stage {pick.stage}"
    question = "Which model, so far?" if findings.unfinished else "Which model?"
    return Headline(question, labels.exact(pick.exact_match), detail, findings.model_folder(pick))


def _removed(point: FrontierPoint) -> str:
    return f"{point.removed_tokens} of {point.total_tokens} CoT tokens removed"


def _speed(findings: Findings, pick: FrontierPoint) -> Headline:
    question, rate = "How fast?", f"{labels.rate(pick.examples_per_second)} examples/s at batch 1"
    whole = [p for p in findings.points if p.passed and not p.removed_tokens and p.model == pick.model]
    base = full_cot_rates(whole).get(pick.model)
    if base is None:
        return Headline(question, rate, f"{labels.tokens(pick.generated_tokens)} tokens written an answer")
    written = labels.tokens(fmean(point.generated_tokens for point in whole))
    detail = f"the speed of writing the whole CoT: {labels.tokens(pick.generated_tokens)} tokens instead of {written}"
    if pick.speedup is not None:
        detail += f"; {labels.speedup(pick.speedup)} that of No CoT"
    return Headline(question, labels.speedup(pick.examples_per_second / base), f"{detail}. {rate}")


def _certainty(findings: Findings, pick: FrontierPoint) -> Headline:
    question = "How sure?"
    group = next(g for g in findings.groups if any(pick in trial.stages for trial in g.trials))
    low, high = wilson(pick.exact_match, findings.examples)
    mean = next((point for point in group.curve if point.removed_tokens == pick.removed_tokens), group.last)
    own, short = f"{labels.exact(low)} to {labels.exact(high)}", _short(findings, group, mean)
    if mean.seeds > 1:
        return Headline(question, *_seeds(group, mean, own, short))
    others = (
        f"{labels.count(short, 'other seed')} did not get this far" if short else "One seed: another may end elsewhere"
    )
    return Headline(question, own, f"95 % interval of this model, from {findings.examples:,} examples. {others}")


def _short(findings: Findings, group: Group, mean: MeanPoint) -> int:
    """How many of a group's planned seeds are not among those of one of its points."""
    own = (group.method, group.words)
    planned = [trial for trial in findings.plan.trials if (trial.method, symbols(trial.settings)) == own]
    return len(planned) - mean.seeds


def _seeds(group: Group, mean: MeanPoint, own: str, short: int) -> tuple[str, str]:
    ends = [p.exact_match for t in group.trials for p in t.curve if p.removed_tokens == mean.removed_tokens]
    others = f" ({short} more did not get this far)" if short else ""
    said = f"mean {labels.exact(mean.exact_match)}, 95 % interval {labels.exact(mean.low)} to {labels.exact(mean.high)}"
    spread = f"{labels.exact(min(ends))} to {labels.exact(max(ends))}"
    return spread, f"over {labels.count(mean.seeds, 'seed')}{others}: {said}. The model itself: {own}"


def _trouble(findings: Findings, outcome: Outcome | None) -> Headline:
    question = "What went wrong?"
    failed, gave_up = findings.failed_attempts, [chain for chain in findings.chains if chain.given_up]
    restarts = len(failed) - len(gave_up)
    missed = outcome.trials - outcome.arrived if outcome and not findings.unfinished else 0
    parts = [
        *([f"{labels.count(missed, 'trial')} missed the goal"] if missed else []),
        *([f"{labels.count(len(gave_up), 'trial')} gave up"] if gave_up else []),
        *([f"{labels.count(restarts, 'restart')}"] if restarts else []),
        *([f"{labels.count(len(findings.pruned), 'trial')} pruned"] if findings.pruned else []),
    ]
    if not parts:
        return Headline(question, "Nothing", f"no attempt at a stage failed{_suspects(findings)}")
    return Headline(question, ", ".join(parts), f"{_why(findings)}{_suspects(findings)}")


def _why(findings: Findings) -> str:
    verdicts: Sequence[str] = [failed.verdict for failed in findings.failed_attempts]
    counted = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)]
    if not counted:
        return "none failed"
    where, trials = "", len(findings.chains)
    if trials > 1:
        where = f", in {len({failed.trial for failed in findings.failed_attempts})} of {trials:,} trials"
    return f"failed attempts: {', '.join(counted)}{where}; the reasons are below"


def _suspects(findings: Findings) -> str:
    suspect = sum(manifest.verdict == "suspect" for manifest in findings.manifests.values())
    return f"; {labels.count(suspect, 'stage')} suspect" if suspect else ""


def _cost(findings: Findings) -> Headline:
    cost = findings.cost
    parts = [f"{cost.total.steps:,} steps of training, with evaluation"]
    if cost.shared.steps:
        parts.append(f"sharing saved {_spent(cost.shared)}")
    parts.append(f"failed attempts cost {_spent(cost.lost)}" if cost.lost.steps else "nothing lost to failed attempts")
    if cost.planned_steps:
        parts.append(f"{cost.planned_steps:,} steps to come")
    return Headline("What did it cost?", labels.time(cost.total.seconds), "; ".join(parts))


def _spent(spent: Spent) -> str:
    return f"{labels.time(spent.seconds)} ({spent.steps:,} steps)"
