"""The colour of every method: the same in the report, in pictures for a paper and in MLflow."""

from __future__ import annotations

from orchestrator.config import Method

COLOURS: dict[Method, str] = {
    "stepwise": "#0072B2",
    "explicit_cot": "#009E73",
    "no_cot": "#D55E00",
    "icot_kd": "#CC79A7",
}
"""Of Okabe and Ito's palette, which colour-blind readers can tell apart. On white."""

ON_DARK: dict[Method, str] = {
    "stepwise": "#56B4E9",
    "explicit_cot": "#19B98D",
    "no_cot": "#E69F00",
    "icot_kd": "#E3A3C6",
}
"""Lighter ones, for a dark page."""
