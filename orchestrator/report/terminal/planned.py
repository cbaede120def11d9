"""A plan's forecast on the terminal: the work to be done, and its cost."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table

from orchestrator.labels import count, duration
from orchestrator.results.forecast import Forecast, ProposalForecast

MOST_TRIALS_BY_STAGE = 4
"""The trials that are shown stage by stage; more have a line each, and ``--json`` has every stage."""


def plan_table(planned: Forecast) -> Group:
    """Return the forecast for a terminal: a line a stage, or a line a trial where there are many."""
    if not planned.trials:
        return Group(*_summary(planned))
    table = _trials(planned) if len(planned.trials) > MOST_TRIALS_BY_STAGE else _stages(planned)
    return Group(table, "", *_summary(planned))


def _table(first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    return table


def _stages(planned: Forecast) -> Table:
    table = _table("trial", "stage", "removed, about" if planned.estimated else "removed", "steps", "about", "")
    for trial in planned.trials:
        for stage in trial.stages:
            remarks = [stage.kind.replace("_", " ")] if stage.kind != "train" else []
            if stage.in_store or stage.shared:
                remarks.append("in the store" if stage.in_store else "shared")
            table.add_row(
                "" if stage.stage else trial.trial,
                str(stage.stage),
                f"{stage.removed_to}/{planned.total_tokens}",
                f"{stage.steps:,}",
                duration(stage.seconds),
                ", ".join(remarks),
            )
    return table


def _trials(planned: Forecast) -> Table:
    table = _table("trial", "stages", "shared", "in store", "steps", "about")
    for trial in planned.trials:
        seconds = [stage.seconds for stage in trial.stages if stage.seconds is not None]
        table.add_row(
            trial.trial,
            str(len(trial.stages)),
            str(sum(stage.shared for stage in trial.stages)),
            str(sum(stage.in_store for stage in trial.stages)),
            f"{trial.steps:,}",
            duration(sum(seconds) if seconds else None),
        )
    return table


def _summary(planned: Forecast) -> Iterator[str]:
    if planned.estimated:
        yield (
            f"about: the longest CoT is estimated at {count(planned.total_tokens, 'token')}; "
            "the tokenizer counts when the job first runs"
        )
    if planned.to_propose:
        yield f"{count(planned.to_propose, 'configuration')} to be proposed while it runs" + (
            ", not in these sums" if planned.trials else ""
        )
    if planned.proposal:
        yield f"each, with all its seeds and methods: {_span(planned.proposal)}"
    if not planned.trials:
        return
    yield (
        f"{count(len(planned.trials), 'trial')}, {planned.steps:,} steps, {planned.steps_shared:,} of them shared; "
        f"left to run: {planned.steps_left:,} steps"
    )
    if planned.disk_bytes_left is None:
        yield "time and disk are not known before a first stage"
    else:
        megabytes = planned.disk_bytes_left / 1e6
        yield f"about {duration(planned.seconds_left)} of one core's time and {megabytes:,.0f} MB of disk"


def _span(proposal: ProposalForecast) -> str:
    (least, most), seconds = proposal.steps, proposal.seconds
    steps = f"{least:,} to {most:,} steps" if least < most else f"{most:,} steps"
    if seconds is None:
        return f"{steps}; their time is not known before a first stage"
    times = dict.fromkeys(duration(each) for each in seconds)
    return f"{steps}, about {' to '.join(times)} of one core's time"
