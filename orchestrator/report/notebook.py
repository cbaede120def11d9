"""The frontier in a notebook."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from orchestrator.errors import InputError, Problem
from orchestrator.report.columns import frontier_arrow
from orchestrator.results.frontier import frontier
from orchestrator.store import StageStore, saved_plan


class Frontier:
    """``orchestrator.Frontier.load("stepwise-store/jobs/quickstart")``."""

    @staticmethod
    def load(path: str | Path) -> pd.DataFrame:
        """One row a committed stage, with the columns of ``frontier.csv``.

        ``path``: the folder of a job in a store, also while it runs, or a report's ``frontier.parquet``
        or ``frontier.csv``, wherever it was copied. Raises ``InputError`` if it is none of these.
        """
        path = Path(path)
        if path.suffix == ".parquet" and path.is_file():
            return pd.read_parquet(path)
        if path.suffix == ".csv" and path.is_file():
            return pd.read_csv(path)
        return _of_job(path.absolute())


def _of_job(folder: Path) -> pd.DataFrame:
    store = StageStore(folder.parents[1]) if len(folder.parents) > 1 else None
    plan = saved_plan(folder.name, store) if store and folder.parent.name == "jobs" else None
    if plan is None or store is None:
        allowed = "give the folder STORE/jobs/NAME of a job that ran, a frontier.parquet or a frontier.csv"
        raise InputError(Problem("RPT001", str(folder), "holds no frontier", allowed))
    return frontier_arrow(frontier(plan, store)).to_pandas()
