"""What the jobs of a study came to, from their store: a table to read, and ``results.json`` with the same figures.

    python jobs/studies/summary.py STORE JOB... > jobs/studies/<name>/results.json

The table, in Markdown, goes to standard error, a row for each method of a job. A trial *internalized* its CoT if it
ended with every token removed and at least ``stability.min_exact_match``; one without any model that passed is left
out. Speeds are those of the report, in examples per second one by one: what writes equally many tokens has one speed,
the best that was measured. Who wants pictures asks ``stepwise report``.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.plan import Plan
from orchestrator.results.cost import cost_of
from orchestrator.results.frontier import FrontierPoint, points_of
from orchestrator.results.intervals import interval, wilson
from orchestrator.store import StageStore, saved_plan
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import replay_all


def trial_figures(chain: Chain, end: FrontierPoint) -> dict[str, Any]:
    """How one seed ended, and what it took."""
    return {
        "trial": chain.trial.name,
        "seed": chain.trial.seed,
        "settings": {field: str(value) for field, value in chain.trial.settings},
        "exact_match": end.exact_match,
        "removed_tokens": end.removed_tokens,
        "total_tokens": end.total_tokens,
        "steps": sum(tried.steps for tried in chain.standing),
        "examples_per_second": end.examples_per_second,
        "speedup": end.speedup,
        "restarts": [tried.answer.reason for tried in chain.failures if tried.answer],
        "internalized": end.removed_tokens == end.total_tokens
        and end.exact_match >= chain.trial.job.stability.min_exact_match,
        "finished": chain.finished,
    }


def method_figures(plan: Plan, method: str, chains: list[Chain], ends: dict[str, FrontierPoint]) -> dict[str, Any]:
    """A job's trials of one method, and their mean and share with 95 % intervals. ``ends``: trials' last points."""
    trials = [trial_figures(chain, ends[chain.trial.name]) for chain in chains]
    shares = [trial["exact_match"] for trial in trials]
    internalized = sum(trial["internalized"] for trial in trials)
    examples = chains[0].standing[-1].manifest.metrics.examples
    return {
        "job": plan.job.name,
        "method": method,
        "trials": trials,
        "internalized": internalized,
        "of": len(trials),
        "internalized_interval": wilson(internalized / len(trials), len(trials)),
        "exact_match_mean": sum(shares) / len(shares),
        "exact_match_interval": interval(shares, examples),
        "steps_lost_to_restarts": cost_of(chains, ()).lost.steps,
    }


def row(figures: dict[str, Any]) -> str:
    trials, (low, high) = figures["trials"], figures["exact_match_interval"]
    steps = [trial["steps"] for trial in trials]
    cells = (
        figures["job"],
        figures["method"],
        ", ".join(f"{trial['exact_match']:.3f}" for trial in trials),
        f"{figures['exact_match_mean']:.3f} ({low:.3f} to {high:.3f})",
        f"{figures['internalized']} of {figures['of']}",
        f"{min(steps):,} to {max(steps):,}",
        f"{trials[0]['examples_per_second']:.0f}",
        f"{trials[0]['speedup']:.2f}" if trials[0]["speedup"] else "",
        str(sum(len(trial["restarts"]) for trial in trials)),
    )
    return f"| {' | '.join(cells)} |"


def main(root: str, *names: str) -> None:
    store, results = StageStore(Path(root)), []
    columns = (
        "job",
        "method",
        "exact match of the seeds",
        "mean",
        "internalized",
        "steps of a seed",
        "examples/s",
        "speed-up",
        "restarts",
    )
    rows = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for name in names:
        plan = saved_plan(name, store)
        over = [chain for chain in replay_all(plan, store) if chain.next is None] if plan else []
        if not plan or not over:
            sys.exit(f"{name}: no finished trial in {root}")
        ends = {point.trial: point for point in points_of(over) if point.passed}
        over = [chain for chain in over if chain.trial.name in ends]
        over.sort(key=lambda chain: chain.trial.method)
        for method, chains in groupby(over, lambda chain: chain.trial.method):
            results.append(method_figures(plan, method, list(chains), ends))
            rows.append(row(results[-1]))
    print("\n".join(rows), file=sys.stderr)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
