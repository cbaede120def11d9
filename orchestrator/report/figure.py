"""The frontier as a picture for a paper, PNG and SVG: exact match against removed tokens, and against speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import labels
from orchestrator.labels import COLOURS
from orchestrator.method.stage import RemovalPoint
from orchestrator.report.html.svg import ticks
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.groups import NOTHING, Group, MeanPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"stepwise": "o", "explicit_cot": "^", "no_cot": "s", "icot_kd": "D"}
IN_A_ROW = 6
"""Entries of the legend that fit the width of the picture."""
INK, FAINT = "#2b2f36", "#dfe2e6"
Across = Callable[["FrontierPoint | MeanPoint"], float]
"""Where a point lies from left to right."""


def frontier_figure(findings: Findings) -> Figure:
    """Exact match against removed tokens, and against speed: seeds as points, their mean and its 95 % interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(wspace=0.06, w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(10.5, 4.6), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    if findings.shown:
        by_removal, by_speed = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _calm(by_removal)
        _calm(by_speed)
        _draw_removal(by_removal, findings)
        _draw_speed(by_speed, findings.shown)
        _legend(figure, by_removal)
    else:
        figure.text(0.5, 0.5, NOTHING, ha="center", color=INK)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out; each saving would do so again
    return figure


def save_figure(figure: Figure, path: Path, kind: Literal["png", "svg"]) -> None:
    """Write a figure. The same figure gives the same SVG."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "stepwise"}):
        figure.savefig(path, dpi=160, format=kind, metadata={"Date": None} if kind == "svg" else {})


def _draw_removal(axes: Axes, findings: Findings) -> None:
    total = findings.points[0].total_tokens
    axes.set(xlabel=f"CoT tokens removed, of {total}", ylabel="exact match")
    axes.set_xlim(-0.03 * max(1, total), 1.03 * max(1, total))
    axes.set_ylim(-0.03, 1.04)
    axes.set_xticks(ticks(total))
    for group in findings.others:
        _draw_line(axes, group, _removed, linewidth=1, alpha=0.3, label="other configurations")
    for group in findings.shown:
        _draw_group(axes, group, findings.after_removal)
    for failed in findings.crosses(findings.shown):
        cross = [(failed.removed_tokens, failed.exact_match or 0.0)]
        _scatter(axes, cross, s=30, color=COLOURS[failed.method], marker="x", label="a failed attempt")


def _draw_group(axes: Axes, group: Group, after_removal: Mapping[str, Sequence[RemovalPoint]]) -> None:
    colour = COLOURS[group.method]
    if group.method != "stepwise":
        axes.axhline(group.last.exact_match, color=colour, linewidth=1.2, linestyle=(0, (5, 4)), alpha=0.8)
    _draw_band(axes, group, [(p.low, p.high) for p in group.curve], alpha=0.15, label="95 % interval")
    if group.crowded:
        _draw_band(axes, group, [p.middle for p in group.curve], alpha=0.1, label="nine in ten seeds")
    else:
        removed = [r for trial in group.trials for r in after_removal.get(trial.last.trial, ())]
        removals = [(r.removed_tokens, r.exact_match) for r in removed]
        earlier = [(p.removed_tokens, p.exact_match) for trial in group.trials for p in trial.earlier]
        _scatter(axes, removals, s=16, facecolor="white", edgecolor=colour, label="right after a removal", linewidth=1)
        _scatter(axes, earlier, s=16, color=colour, alpha=0.35, label="earlier stage at the same count", linewidth=0)
    _draw_line(axes, group, _removed, linewidth=2)
    _draw_seeds(axes, group, _removed)


def _draw_band(axes: Axes, group: Group, ends: Sequence[tuple[float, float]], **look: Any) -> None:
    """From low to high around a curve, or along a baseline's line."""
    look |= {"color": COLOURS[group.method], "linewidth": 0}
    if group.method != "stepwise":
        axes.axhspan(*ends[-1], **look | {"label": None})
    else:
        axes.fill_between([_removed(p) for p in group.curve], *zip(*ends, strict=True), **look)


def _draw_speed(axes: Axes, groups: Sequence[Group]) -> None:
    across: Across = _written
    if all(point.speedup is not None for group in groups for point in group.curve):
        across = _speed
        axes.set_xlabel("examples/s at batch 1, relative to No CoT")
        axes.xaxis.set_major_formatter("{x:g}x")
    else:
        axes.set_xlabel("tokens written per answer")
    for group in groups:
        whiskers = [(across(p), *(p.middle if group.crowded else (p.low, p.high))) for p in group.curve]
        axes.vlines(*zip(*whiskers, strict=True), color=COLOURS[group.method], linewidth=1.2, alpha=0.6)
        places = [(across(point), point.exact_match) for point in group.front]
        axes.plot(*zip(*places, strict=True), color=COLOURS[group.method], linewidth=2, zorder=4, clip_on=False)
        _draw_seeds(axes, group, across)
    if across is _written:
        axes.invert_xaxis()
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelleft=False)


def _removed(point: FrontierPoint | MeanPoint) -> float:
    return point.removed_tokens


def _speed(point: FrontierPoint | MeanPoint) -> float:
    return point.speedup or 0.0


def _written(point: FrontierPoint | MeanPoint) -> float:
    return point.generated_tokens


def _draw_line(axes: Axes, group: Group, across: Across, **look: object) -> None:
    """The mean over seeds."""
    places = [(across(point), point.exact_match) for point in group.curve]
    axes.plot(*zip(*places, strict=True), color=COLOURS[group.method], zorder=4, clip_on=False, **look)


def _draw_seeds(axes: Axes, group: Group, across: Across) -> None:
    """Every seed; of a crowd its mean. Baselines over the rest: their few marks would be hidden."""
    curves = [group.curve] if group.crowded else [trial.curve for trial in group.trials]
    places = [(across(point), point.exact_match) for curve in curves for point in curve]
    axes.plot(
        *zip(*places, strict=True),
        color=COLOURS[group.method],
        marker=MARKERS[group.method],
        markersize=7.5,
        markeredgecolor="white",
        linestyle="none",
        label=labels.LABELS[group.method],
        zorder=5 if group.method == "stepwise" else 6,
        clip_on=False,
    )


def _scatter(axes: Axes, places: Iterable[tuple[float, float]], **look: object) -> None:
    if places := list(places):
        axes.scatter(*zip(*places, strict=True), zorder=3, clip_on=False, **look)


def _legend(figure: Figure, axes: Axes) -> None:
    """One entry a method, however many seeds, above both panels, in as many rows as their width needs."""
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = list(dict.fromkeys(label for label in (*labels.LABELS.values(), *handles) if label in handles))
    figure.legend(
        [handles[label] for label in shown],
        shown,
        loc="outside upper left",
        ncols=len(shown) if len(shown) <= IN_A_ROW else 4,
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
