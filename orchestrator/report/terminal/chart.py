"""The frontier as a picture in characters, for the end of a run on any terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from orchestrator import labels
from orchestrator.report.picture import ticks
from orchestrator.results.findings import Findings
from orchestrator.results.groups import NOTHING, Group

ROWS = 10
"""The rows above the zero line: a tenth of exact match each."""
BARS = "▁▂▃▄▅▆▇█"
LINES: tuple[str, ...] = ("─", "┄", "┈")
"""The lines of baselines, in the order of the legend."""


def sparkline(shares: list[float], width: int) -> str:
    """Draw the last ``width`` values between 0 and 1, a bar each."""
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares[-width:])


def frontier_chart(findings: Findings, width: int = 72) -> str:
    """Draw exact match against removed tokens: means over seeds, right after each removal, baselines as lines.

    ``width``: in characters.
    """
    if not findings.shown:
        return NOTHING
    groups, total = findings.shown, findings.points[0].total_tokens
    lines = dict(zip(dict.fromkeys(g.method for g in groups if g.method != "stepwise"), LINES, strict=False))
    canvas = _Canvas(width - 6, total)
    for group in groups:
        if group.method in lines:
            canvas.level(group.last.exact_match, lines[group.method])
    for group in groups:
        if group.method == "stepwise":
            canvas.curve(group, findings)
    entries = []
    for group in groups:
        mark, mean = lines.get(group.method, "●"), " on average" if len(group.trials) > 1 else ""
        entries.append(f"{mark} {labels.LABELS[group.method]} {labels.exact(group.last.exact_match)}{mean}")
    if any(group.method == "stepwise" for group in groups):
        entries.append("○ right after a removal")
    return "\n".join(["exact match", *canvas.drawn(), "", *entries])


class _Canvas:
    """A grid of characters, ``total`` tokens wide and 1 high; the bottom row is 0."""

    def __init__(self, columns: int, total: int) -> None:
        self.columns, self.total, self.across = columns, total, max(1, total)
        self.cells = [[" "] * columns for _ in range(ROWS + 1)]

    def put(self, removed: float, share: float, mark: str) -> None:
        self.cells[ROWS - round(share * ROWS)][round(removed / self.across * (self.columns - 1))] = mark

    def level(self, share: float, mark: str) -> None:
        self.cells[ROWS - round(share * ROWS)] = [mark] * self.columns

    def curve(self, group: Group, findings: Findings) -> None:
        for a, b in pairwise(group.curve):
            for step in range(1, 2 * self.columns):
                part = step / (2 * self.columns)
                removed = a.removed_tokens + part * (b.removed_tokens - a.removed_tokens)
                self.put(removed, a.exact_match + part * (b.exact_match - a.exact_match), "·")
        for trial in group.trials:
            for removal in findings.after_removal.get(trial.last.trial, ()):
                self.put(removal.removed_tokens, removal.exact_match, "○")
        for point in group.curve:
            self.put(point.removed_tokens, point.exact_match, "●")

    def drawn(self) -> Iterator[str]:
        for row, cells in enumerate(self.cells):
            label = f"{1 - row / ROWS:.1f} ┤" if row % 2 == 0 else "    │"
            yield f"{label}{''.join(cells)}".rstrip()
        axis = [" "] * (self.columns + 4)
        for tick in ticks(self.total):
            text, at = str(tick), round(tick / self.across * (self.columns - 1))
            axis[at : at + len(text)] = text
        yield f"     {''.join(axis).rstrip()}"
        yield f"     CoT tokens removed, of {self.total}"
