"""What a run ends with on the terminal: tables, the ranking of a search, and the frontier in characters."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from orchestrator.method.stage import PASSED
from orchestrator.report.chart import frontier_chart
from orchestrator.report.findings import Findings
from orchestrator.report.table import frontier_table, standings_table, summary_table
from orchestrator.report.text import count
from orchestrator.report.trials import by_trial
from orchestrator.search import best_line

MOST_TRIALS = 30
MOST_CONFIGURATIONS = 20
"""More are left to the report; what went wrong is always shown."""


def ending(findings: Findings) -> Iterator[RenderableType]:
    """Of a search the best configuration stage by stage; of many trials those that failed, then those of it."""
    best = {trial.last.trial for group in findings.shown for trial in group.trials}
    trials = by_trial(findings.points)
    listed = {trial.last.trial for trial in trials}
    if len(trials) > MOST_TRIALS:
        wanted = sorted(trials, key=lambda trial: (trial.verdict in PASSED, trial.last.trial not in best))
        listed = {trial.last.trial for trial in wanted[:MOST_TRIALS]}
    if stepwise := [p for p in findings.points if p.trial in best & listed and p.method == "stepwise"]:
        yield frontier_table(stepwise)
    yield summary_table((point for point in findings.points if point.trial in listed), findings.pruned)
    if hidden := len(trials) - len(listed):
        yield f"{count(hidden, 'trial')} more in the report"
    if findings.plan.job.search:
        yield standings_table(findings.plan.job.search, findings.ranked[:MOST_CONFIGURATIONS])
        if (more := len(findings.ranked) - MOST_CONFIGURATIONS) > 0:
            yield f"{count(more, 'configuration')} more in the report"
        yield best_line(findings.plan, findings.ranked)
    yield ""
    yield frontier_chart(findings)
    if findings.unfinished:
        trials = f"{findings.unfinished} of {count(len(findings.chains), 'trial')}"
        yield f"unfinished: {trials} still to train; `stepwise run {findings.plan.job.name}` goes on"
