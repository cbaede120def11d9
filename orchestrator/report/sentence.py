"""The result of a job in one sentence, computed from its points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from orchestrator import labels
from orchestrator.config import Method
from orchestrator.plan import Plan
from orchestrator.results.findings import Findings
from orchestrator.results.groups import NOTHING
from orchestrator.results.ranking import best_line, of_configuration
from orchestrator.results.trial_points import TrialPoints


def reading(findings: Findings) -> str:
    """Return how the last committed stages did: mean and range where there are several seeds.

    A search begins with its best configuration; then come the trials of the leader.
    """
    if not findings.points:
        return "No stage is committed yet."
    plan, line = findings.plan, ""
    if findings.ranked:
        line = f"{best_line(plan, findings.ranked)}. "
    if findings.leader:
        plan = of_configuration(plan, findings.leader.settings)
    names = {trial.name for trial in plan.trials}
    trials = [trial for trial in findings.trials if trial.last.trial in names]
    ends = NOTHING
    if any(trial.passed for trial in trials):
        stepwise = [t for t in trials if t.method == "stepwise" and t.passed]
        by_method = ([t for t in trials if t.method == m] for m in ("stepwise", "no_cot", "explicit_cot", "icot_kd"))
        ends = "; ".join(_clause(plan, of_method, stepwise) for of_method in by_method if of_method) + "."
    return f"{line[:1].upper()}{line[1:]}{ends}"


def _clause(plan: Plan, trials: Sequence[TrialPoints], stepwise: Sequence[TrialPoints]) -> str:
    """Say how the trials of a method ended that passed a stage, and what went wrong with any."""
    passed = [t for t in trials if t.passed]
    if not passed:
        says = f"{_who(plan, trials)}: no stage passed"
    elif passed[0].method == "stepwise":
        says = _stepwise(plan, passed)
    else:
        says = _baseline(plan, passed, stepwise)
    return says + _trouble(trials)


def _stepwise(plan: Plan, trials: Sequence[TrialPoints]) -> str:
    removed = [t.last.removed_tokens for t in trials]
    most = trials[0].last.total_tokens
    reached = f"{removed[0]}" if len(set(removed)) == 1 else f"{min(removed)} to {max(removed)}"
    exact_match = _spread([t.last.exact_match for t in trials])
    return (
        f"{_who(plan, trials)}: {reached} of {most} CoT tokens removed{_progress(plan, trials)}, "
        f"exact match {exact_match}"
    )


def _baseline(plan: Plan, trials: Sequence[TrialPoints], stepwise: Sequence[TrialPoints]) -> str:
    same_seeds = [t.last.seed for t in trials] == [t.last.seed for t in stepwise]
    name = labels.LABELS[trials[0].method] if same_seeds else _who(plan, trials)
    clause = f"{name}{_duration(trials, stepwise)}: {_spread([t.last.exact_match for t in trials])}"
    if trials[0].method == "explicit_cot":
        clause += f", writing {_written(trials)} tokens" + (f" instead of {_written(stepwise)}" if stepwise else "")
    return clause


def _who(plan: Plan, trials: Sequence[TrialPoints]) -> str:
    method: Method = trials[0].method
    planned = sum(trial.method == method for trial in plan.trials)
    if planned == 1:
        return f"{labels.LABELS[method]}, seed {trials[0].last.seed}"
    seeds = f"{planned} seeds" if len(trials) == planned else f"{len(trials)} of {planned} seeds"
    return f"{labels.LABELS[method]}, {seeds}"


def _progress(plan: Plan, trials: Sequence[TrialPoints]) -> str:
    names = {t.last.trial for t in trials}
    planned = sum(len(trial.stages) for trial in plan.trials if trial.name in names)
    committed = sum(len(t.passed) for t in trials)
    return "" if committed == planned else f" so far ({committed} of {planned} stages)"


def _duration(trials: Sequence[TrialPoints], stepwise: Sequence[TrialPoints]) -> str:
    """Say the steps where they differ from the stepwise run's, or make the comparison fair."""
    steps = sorted({t.last.step for t in trials})
    if steps == sorted({t.last.step for t in stepwise}):
        return " after as many steps" if trials[0].method == "no_cot" else ""
    return f" after {steps[0]:,} steps" if len(steps) == 1 else f" after {steps[0]:,} to {steps[-1]:,} steps"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return labels.exact(values[0])
    return f"{labels.exact(fmean(values))} on average ({labels.exact(min(values))} to {labels.exact(max(values))})"


def _written(trials: Sequence[TrialPoints]) -> str:
    return labels.tokens(fmean(t.last.generated_tokens for t in trials))


def _trouble(trials: Sequence[TrialPoints]) -> str:
    """Say the restarts, and every verdict on a last stage that is not good."""
    restarts = sum(t.restarts for t in trials)
    parts = [f"after {labels.count(restarts, 'restart')}"] if restarts else []
    for verdict, number in Counter(t.verdict for t in trials if t.verdict != "good").items():
        parts.append(f"last stage {verdict}" if len(trials) == 1 else f"last stage of {number} {verdict}")
    return f" ({', '.join(parts)})" if parts else ""
