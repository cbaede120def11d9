"""The frontier in a notebook."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from orchestrator.errors import InputError, Problem
from orchestrator.report.columns import frontier_arrow
from orchestrator.results.frontier import frontier
from orchestrator.store import StageStore, saved_plan


def load_frontier(path: str | Path) -> pd.DataFrame:
    """Return a DataFrame with one row a committed stage and the columns of ``frontier.csv``.

    ``path``: the folder of a job in a store, as ``stepwise-store/jobs/quickstart``, also while it runs, or a report's
    ``frontier.parquet`` or ``frontier.csv``, wherever it was copied. Raises ``InputError`` if it is none of these.
    """
    path = Path(path).absolute()
    if path.suffix == ".parquet" and path.is_file():
        return pd.read_parquet(path)
    if path.suffix == ".csv" and path.is_file():
        return pd.read_csv(path)
    if path.parent.name == "jobs":
        store = StageStore(path.parents[1])
        if plan := saved_plan(path.name, store):
            return frontier_arrow(frontier(plan, store)).to_pandas()
    allowed = "give the folder STORE/jobs/NAME of a job that ran, a frontier.parquet or a frontier.csv"
    raise InputError(Problem("RPT001", str(path), "holds no frontier", allowed))
