"""The six questions a report is opened with, each answered in a line or two."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import NamedTuple

from orchestrator import labels
from orchestrator.plan.grid import symbols
from orchestrator.results.cost import Spent
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint, best_point
from orchestrator.results.intervals import wilson
from orchestrator.results.outcome import QUESTION, outcome_of
from orchestrator.results.winners import full_cot_rates


class Headline(NamedTuple):
    """``value`` in large letters, ``detail`` below it, ``code`` to copy."""

    question: str
    value: str
    detail: str
    code: str = ""


def headlines(findings: Findings) -> tuple[Headline, ...]:
    """Return the answers: did it internalize, which model, how fast, how sure, what went wrong, what it cost.

    A job of baselines alone is not asked whether it internalized, and where no stage passed there is no model.
    """
    outcome = outcome_of(findings)
    first = [Headline(QUESTION, outcome.value, outcome.detail, outcome.command)] if outcome else []
    pick = best_point(findings.points, findings.plan.job.stability.min_exact_match)
    about_model = [_model(findings, pick), _speed(findings, pick), _certainty(findings, pick)] if pick else []
    missed = outcome.trials - outcome.arrived if outcome and not findings.unfinished else 0
    return (*first, *about_model, _trouble(findings, missed), _cost(findings))


def _model(findings: Findings, pick: FrontierPoint) -> Headline:
    left = f"{pick.removed_tokens} of {pick.total_tokens} CoT tokens removed"
    if pick.removed_tokens == pick.total_tokens:
        left = "no CoT left"
    name = [
        labels.LABELS[pick.method],
        symbols(tuple(pick.settings.items())),
        f"seed {pick.seed}",
        f"stage {pick.stage}",
    ]
    detail = f"exact match with {left}: {', '.join(filter(None, name))}"
    question = "Which model, so far?" if findings.unfinished else "Which model?"
    return Headline(question, labels.exact(pick.exact_match), detail, findings.model_folder(pick))


def _speed(findings: Findings, pick: FrontierPoint) -> Headline:
    question, rate = "How fast?", f"{labels.rate(pick.examples_per_second)} examples/s"
    written = f"{labels.tokens(pick.generated_tokens)} tokens"
    over_no_cot = f"; {labels.speedup(pick.speedup)} the speed of No CoT" if pick.speedup is not None else ""
    if pick.total_tokens and not pick.removed_tokens:
        return Headline(question, rate, f"at batch 1: it writes its whole CoT, {written} an answer{over_no_cot}")
    whole = [p for p in findings.points if p.passed and not p.removed_tokens and p.model == pick.model]
    base = full_cot_rates(whole).get(pick.model)
    if base is None:
        return Headline(question, rate, f"at batch 1, {written} an answer{over_no_cot}")
    of_whole = labels.tokens(fmean(point.generated_tokens for point in whole))
    detail = f"the speed of writing the whole CoT: {written} instead of {of_whole}{over_no_cot}. {rate} at batch 1"
    return Headline(question, labels.speedup(pick.examples_per_second / base), detail)


def _certainty(findings: Findings, pick: FrontierPoint) -> Headline:
    question, own = "How sure?", _between(*wilson(pick.exact_match, findings.examples))
    group = next(g for g in findings.groups if any(pick in trial.stages for trial in g.trials))
    planned = sum((t.method, symbols(t.settings)) == (group.method, group.words) for t in findings.plan.trials)
    mean = next((point for point in group.curve if point.removed_tokens == pick.removed_tokens), group.last)
    short = planned - mean.seeds
    if mean.seeds == 1:
        others = "One seed: another may end elsewhere"
        if short:
            others = f"{labels.count(short, 'other seed')} did not get this far"
        detail = f"95 % interval of this model, from {findings.examples:,} examples. {others}"
        return Headline(question, own, detail)
    ends = [p.exact_match for t in group.trials for p in t.curve if p.removed_tokens == mean.removed_tokens]
    seeds = labels.count(mean.seeds, "seed") + (f" ({short} more did not get this far)" if short else "")
    said = f"mean {labels.exact(mean.exact_match)}, 95 % interval {_between(mean.low, mean.high)}"
    return Headline(question, _between(min(ends), max(ends)), f"over {seeds}: {said}. The model itself: {own}")


def _between(low: float, high: float) -> str:
    return f"{labels.exact(low)} to {labels.exact(high)}"


def _trouble(findings: Findings, missed: int) -> Headline:
    """Say what went wrong. ``missed``: trials that ended without the exact match that was asked."""
    failed, gave_up = findings.failed_attempts, sum(bool(chain.given_up) for chain in findings.chains)
    restarts, pruned, trials = len(failed) - gave_up, len(findings.pruned), len(findings.chains)
    parts = [
        *([f"{labels.count(missed, 'trial')} missed the goal"] if missed else []),
        *([f"{labels.count(gave_up, 'trial')} gave up"] if gave_up else []),
        *([labels.count(restarts, "restart")] if restarts else []),
        *([f"{labels.count(pruned, 'trial')} pruned"] if pruned else []),
    ]
    detail = "none failed" if parts else "no attempt at a stage failed"
    if failed:
        verdicts = Counter(attempt.verdict for attempt in failed)
        counted = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        where = f", in {len({attempt.trial for attempt in failed})} of {trials:,} trials" if trials > 1 else ""
        detail = f"failed attempts: {counted}{where}; the reasons are below"
    if suspect := sum(manifest.verdict == "suspect" for manifest in findings.manifests.values()):
        detail += f"; {labels.count(suspect, 'stage')} suspect"
    return Headline("What went wrong?", ", ".join(parts) or "Nothing", detail)


def _cost(findings: Findings) -> Headline:
    cost = findings.cost

    def words(spent: Spent) -> str:
        return f"{labels.time(spent.seconds)} ({spent.steps:,} steps)"

    parts = [f"{cost.total.steps:,} steps of training, with evaluation"]
    if cost.shared.steps:
        parts.append(f"sharing saved {words(cost.shared)}")
    parts.append(f"failed attempts cost {words(cost.lost)}" if cost.lost.steps else "nothing lost to failed attempts")
    if cost.planned_steps:
        parts.append(f"{cost.planned_steps:,} steps to come")
    return Headline("What did it cost?", labels.time(cost.total.seconds), "; ".join(parts))
