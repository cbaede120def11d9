"""The results of linear probes: a table, a CSV and a picture of layers and positions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from orchestrator.labels import LIGHT
from orchestrator.shown import cell

if TYPE_CHECKING:
    from orchestrator.method.probing.linear_probe import Grid, ProbeScores


@dataclass(frozen=True)
class ProbeReport:
    """The scores of a stage, and the symbols at its positions."""

    title: str
    positions: Sequence[str]
    scores: Sequence[ProbeScores]

    def table(self) -> Table:
        """Return every intermediate result with the best site of both models."""
        table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("intermediate result", vertical="bottom")
        for heading in ("constant", "untrained\nmodel", "this\nmodel", "skill"):
            table.add_column(heading, justify="right", vertical="bottom")
        table.add_column("best read at", vertical="bottom")
        for score in self.scores:
            value, layer, position = _best(score, score.trained)
            table.add_row(
                score.target.name + ("" if score.target.is_digit else " (mean error)"),
                f"{score.constant:.2f}",
                f"{_best(score, score.untrained)[0]:.2f}",
                f"{value:.2f}",
                f"{max(0.0, score.skill(value)):.2f}",
                f"layer {layer}, {self.positions[position]}",
                end_section=score is self.scores[-1],
            )
        return table

    def csv(self) -> str:
        """Return one row for each model, intermediate result, layer and position."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["model", "target", "family", "layer", "position", "symbol", "score", "constant", "skill"])
        for score, model in product(self.scores, ("trained", "untrained")):
            for layer, row in enumerate(getattr(score, model)):
                for position, value in enumerate(row):
                    place = [layer, position, cell(self.positions[position])]
                    facts = [round(value, 4), round(score.constant, 4), round(score.skill(value), 4)]
                    writer.writerow([model, score.target.name, score.target.family, *place, *facts])
        return text.getvalue()

    def png(self, path: Path) -> None:
        """Draw a strip of layers x positions for every intermediate result, this model beside the untrained one."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        layers = len(self.scores[0].trained)
        height = len(self.scores) * (0.12 * layers + 0.22) + 1.3
        width = max(9.0, 0.36 * len(self.positions) * 2 + 2.5)
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(len(self.scores), 2, squeeze=False, sharex=True)
        for row, score in zip(axes, self.scores, strict=True):
            for place, grid in zip(row, (score.trained, score.untrained), strict=True):
                shown = [[score.skill(value) for value in line] for line in grid]
                place.imshow(shown, vmin=0, vmax=1, cmap="cividis", aspect="auto", origin="lower")
                place.set_yticks([0, layers - 1])
                place.tick_params(length=0, labelsize=7, labelcolor=LIGHT["ink"])
                place.spines[:].set_visible(False)
            row[0].set_ylabel(score.target.name, rotation=0, ha="right", va="center", fontsize=8, color=LIGHT["ink"])
        for place, heading in zip(axes[0], ("this model", "an untrained model"), strict=True):
            place.set_title(heading, fontsize=10, color=LIGHT["ink"])
        for place in axes[-1]:
            place.set_xticks(range(len(self.positions)), self.positions)
        figure.suptitle(self.title, fontsize=11, color=LIGHT["ink"])
        bar = figure.colorbar(axes[0][0].images[0], ax=axes, location="bottom", shrink=0.4, aspect=40, pad=0.01)
        bar.set_label(
            "skill of a linear probe: 0 the constant, 1 perfect; layers upwards", fontsize=8, color=LIGHT["ink"]
        )
        bar.ax.tick_params(labelsize=7)
        canvas.print_figure(path, dpi=130, format="png")


def _best(score: ProbeScores, grid: Grid) -> tuple[float, int, int]:
    """Return the best score of a grid, with its layer and position; the first of equals."""
    sites = [(value, layer, position) for layer, row in enumerate(grid) for position, value in enumerate(row)]
    return max(sites, key=lambda site: score.skill(site[0]))
