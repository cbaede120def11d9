"""The frontier as tables: for the terminal, within 80 columns, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from orchestrator.config import Method
from orchestrator.method.stage import Verdict
from orchestrator.report import words
from orchestrator.report.trials import by_trial
from orchestrator.store.frontier import FrontierPoint

SHORT_LABELS: dict[Method, str] = {**words.LABELS, "stepwise": "Stepwise"}
MEASURES = ("tokens\nremoved", "exact\nmatch", "tokens\nwritten", "examples\n/s", "speed-\nup")


@dataclass(frozen=True)
class SummaryRow:
    """Where a trial stands: its last stage that passed, and the verdict on its last one."""

    trial: str
    method: Method
    seed: int
    removed_tokens: int
    total_tokens: int
    exact_match: float
    generated_tokens: float
    examples_per_second: float
    speedup: float | None
    steps: int
    minutes: float
    """Training and evaluating all its committed stages."""
    restarts: int
    verdict: Verdict


def summary_rows(points: Iterable[FrontierPoint]) -> tuple[SummaryRow, ...]:
    """One row a trial."""
    return tuple(
        SummaryRow(
            trial=trial.last.trial,
            method=trial.method,
            seed=trial.last.seed,
            removed_tokens=trial.last.removed_tokens,
            total_tokens=trial.last.total_tokens,
            exact_match=trial.last.exact_match,
            generated_tokens=trial.last.generated_tokens,
            examples_per_second=trial.last.examples_per_second,
            speedup=trial.last.speedup,
            steps=trial.last.step,
            minutes=sum(stage.seconds for stage in trial.stages) / 60,
            restarts=trial.restarts,
            verdict=trial.verdict,
        )
        for trial in by_trial(points)
    )


def summary_table(points: Iterable[FrontierPoint]) -> Table:
    """Every trial's last committed stage."""
    rows = summary_rows(points)
    restarts = ["re-\nstarts"] if any(row.restarts for row in rows) else []
    table = _table("method", ["seed", *MEASURES, "steps", "min", *restarts], gutter=1)
    table.add_column("verdict", vertical="bottom")
    for row in rows:
        table.add_row(
            SHORT_LABELS[row.method],
            str(row.seed),
            f"{row.removed_tokens}/{row.total_tokens}",
            words.exact(row.exact_match),
            words.tokens(row.generated_tokens),
            words.rate(row.examples_per_second),
            words.speedup(row.speedup),
            f"{row.steps:,}",
            words.minutes(60 * row.minutes),
            *[str(row.restarts)] * len(restarts),
            row.verdict,
        )
    return table


def frontier_table(points: Iterable[FrontierPoint]) -> Table:
    """Stepwise Internalization stage by stage; a star marks the Pareto set over all methods."""
    table = _table("seed", ["stage", *MEASURES], gutter=2)
    table.add_column("Pareto", justify="center")
    for trial in by_trial(point for point in points if point.method == "stepwise"):
        for point in trial.stages:
            table.add_row(
                str(point.seed) if point is trial.stages[0] else "",
                str(point.stage),
                f"{point.removed_tokens}/{point.total_tokens}",
                words.exact(point.exact_match),
                words.tokens(point.generated_tokens),
                words.rate(point.examples_per_second),
                words.speedup(point.speedup),
                "*" if point.pareto else "",
                end_section=point is trial.last,
            )
    return table


def frontier_csv(points: Iterable[FrontierPoint]) -> str:
    """Every field of every point; an empty cell is None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(FrontierPoint.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.model_dump(mode="json") for point in points)
    return text.getvalue()


def _table(name: str, numbers: Sequence[str], gutter: int) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, gutter - 1, 0, 0), show_edge=False)
    table.add_column(name, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold", min_width=5)
    for column in table.columns:
        column.vertical = "bottom"
    return table
