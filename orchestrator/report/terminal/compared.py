"""Two jobs beside each other, on the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from orchestrator import labels
from orchestrator.results.compare import Comparison


def comparison_table(compared: Comparison) -> Group:
    """Return the comparison for a terminal."""
    left, right = compared.jobs
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("exact match")
    for name, settings in zip(compared.jobs, compared.shown, strict=True):
        table.add_column(f"{name}\n{settings}" if settings else name, justify="right", overflow="fold")
    table.add_column("difference", justify="right")
    for row, (a, b) in compared.exact_match.items():
        difference = "" if a is None or b is None else f"{b - a:+.3f}"
        table.add_row(row, *("-" if value is None else labels.exact(value) for value in (a, b)), difference)
    common = labels.count(compared.stages_in_common, "stage")
    best = [f"{name}  {line}" for name, line in zip(compared.jobs, compared.best, strict=True) if line]
    return Group(
        f"{left} -> {right}",
        *(f"  {line}" for line in compared.differences or ["no field differs but the name"]),
        f"  {common} in common",
        "",
        table,
        *best,
    )
