"""The frontier as a PNG: exact match against removed tokens, and against speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.method.stage import RemovalPoint
from orchestrator.report import words
from orchestrator.report.svg import ticks
from orchestrator.report.trials import Setback, TrialPoints, by_trial
from orchestrator.store.frontier import FrontierPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"stepwise": "o", "explicit_cot": "^", "no_cot": "s", "icot_kd": "D"}
INK, FAINT = "#2b2f36", "#dfe2e6"


def frontier_png(
    points: Sequence[FrontierPoint],
    after_removal: Mapping[str, Sequence[RemovalPoint]],
    failed: Sequence[Setback],
    path: Path,
) -> None:
    """Draw the points of a job. ``after_removal``: by trial, exact match right after each removal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(wspace=0.06, w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(10.5, 4.6), layout=layout, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    if trials := by_trial(points):
        by_removal, by_speed = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _calm(by_removal)
        _calm(by_speed)
        _draw_removal(by_removal, trials, after_removal)
        for method in {setback.method: None for setback in failed}:
            crosses = [(f.removed_tokens, f.exact_match or 0.0) for f in failed if f.method == method]
            _scatter(by_removal, crosses, s=30, color=words.COLOURS[method], marker="x", label="a failed attempt")
        _draw_speed(by_speed, trials)
        _legend(figure, by_removal)
    else:
        figure.text(0.5, 0.5, "No stage is committed yet.", ha="center", color=INK)
    canvas.print_figure(path, dpi=160, format="png")


def _draw_removal(
    axes: Axes, trials: Sequence[TrialPoints], after_removal: Mapping[str, Sequence[RemovalPoint]]
) -> None:
    total = trials[0].last.total_tokens
    axes.set(xlabel=f"CoT tokens removed, of {total}", ylabel="exact match")
    axes.set_xlim(-0.03 * total, 1.03 * total)
    axes.set_ylim(-0.03, 1.04)
    axes.set_xticks(ticks(total))
    for trial in trials:
        colour = words.COLOURS[trial.method]
        if trial.method != "stepwise":
            axes.axhline(trial.last.exact_match, color=colour, linewidth=1.2, linestyle=(0, (5, 4)), alpha=0.8)
        removals = [(r.removed_tokens, r.exact_match) for r in after_removal.get(trial.last.trial, ())]
        earlier = [(p.removed_tokens, p.exact_match) for p in trial.earlier]
        _scatter(axes, removals, s=16, facecolor="white", edgecolor=colour, label="right after a removal", linewidth=1)
        _scatter(axes, earlier, s=16, color=colour, alpha=0.35, label="earlier stage at the same count", linewidth=0)
        _draw_curve(axes, trial, lambda point: point.removed_tokens)


def _draw_speed(axes: Axes, trials: Sequence[TrialPoints]) -> None:
    if all(trial.last.speedup is not None for trial in trials):
        axes.set_xlabel("examples/s at batch 1, relative to No CoT")
        axes.xaxis.set_major_formatter("{x:g}x")
        for trial in trials:
            _draw_curve(axes, trial, lambda point: point.speedup or 0.0)
    else:
        axes.set_xlabel("tokens written per answer")
        for trial in trials:
            _draw_curve(axes, trial, lambda point: point.generated_tokens)
        axes.invert_xaxis()
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelleft=False)


def _draw_curve(axes: Axes, trial: TrialPoints, across: Callable[[FrontierPoint], float]) -> None:
    axes.plot(
        [across(point) for point in trial.curve],
        [point.exact_match for point in trial.curve],
        color=words.COLOURS[trial.method],
        marker=MARKERS[trial.method],
        markersize=7.5,
        markeredgecolor="white",
        linewidth=2,
        linestyle="-" if trial.method == "stepwise" else "none",
        label=words.LABELS[trial.method],
        zorder=4,
        clip_on=False,
    )


def _scatter(axes: Axes, places: Iterable[tuple[float, float]], **look: object) -> None:
    if places := list(places):
        axes.scatter(*zip(*places, strict=True), zorder=3, clip_on=False, **look)


def _legend(figure: Figure, axes: Axes) -> None:
    """One entry a method, however many seeds, above both panels."""
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    labels = list(dict.fromkeys(label for label in (*words.LABELS.values(), *handles) if label in handles))
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside upper left",
        ncols=len(labels),
        frameon=False,
        labelcolor=INK,
        fontsize=9.5,
        columnspacing=1.6,
        handletextpad=0.5,
    )


def _calm(axes: Axes) -> None:
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=FAINT, labelcolor=INK, length=0, pad=6, labelsize=9.5)
    axes.xaxis.label.set(color=INK, size=10.5)
    axes.yaxis.label.set(color=INK, size=10.5)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)
