"""The end of a run on the terminal: tables, the ranking of a search, and the frontier in characters."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from orchestrator.labels import count
from orchestrator.method.stage import PASSED
from orchestrator.report.terminal.chart import frontier_chart
from orchestrator.report.terminal.tables import frontier_table, standings_table, summary_table
from orchestrator.results.findings import Findings
from orchestrator.results.outcome import outcome_of
from orchestrator.results.ranking import best_line

MOST_TRIALS = 30
"""The trials shown, failed ones first; the report has more."""
MOST_CONFIGURATIONS = 20
"""The configurations shown; the report has more."""


def ending(findings: Findings) -> Iterator[RenderableType]:
    """Yield whether the job internalized, then its tables and its picture.

    A search shows its best configuration stage by stage; a job of many trials shows those that failed first.
    """
    outcome = outcome_of(findings)
    if outcome:
        yield outcome.line
        yield ""
    best = {trial.last.trial for group in findings.shown for trial in group.trials}
    wanted = sorted(findings.trials, key=lambda trial: (trial.verdict in PASSED, trial.last.trial not in best))
    names = {trial.last.trial for trial in wanted[:MOST_TRIALS]}
    listed = [trial for trial in findings.trials if trial.last.trial in names]
    if stepwise := [trial for trial in listed if trial.last.trial in best and trial.method == "stepwise"]:
        if stepwise[0].settings:
            yield f"{stepwise[0].settings}, stage by stage:"
        yield frontier_table(stepwise)
    yield summary_table(listed, findings.pruned)
    if hidden := len(findings.trials) - len(listed):
        yield f"{count(hidden, 'trial')} more in the report"
    if findings.plan.job.search:
        yield standings_table(findings.plan.job.search, findings.ranked[:MOST_CONFIGURATIONS])
        if (more := len(findings.ranked) - MOST_CONFIGURATIONS) > 0:
            yield f"{count(more, 'configuration')} more in the report"
        yield best_line(findings.plan, findings.ranked)
    yield ""
    yield frontier_chart(findings)
    if findings.unfinished:
        next_ = "a command is at it" if findings.trained_now else f"`stepwise run {findings.plan.job.name}` goes on"
        yield f"unfinished: {findings.unfinished} of {count(len(findings.chains), 'trial')} still to train; {next_}"
    elif outcome and outcome.command:
        yield f"go on: {outcome.command}"
