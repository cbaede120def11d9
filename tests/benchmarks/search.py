"""What a search executes and what the same search costs as independent Tune trials; and running it again.

The command is the real one. Independent trials train every stage of their chains themselves; the search
runs equal stages once, stops configurations that stay behind and restarts what is lost. The steps it took, those of
failed attempts among them, are read from the store.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench import STEPWISE, Figure, arguments, finish, table

from orchestrator.config import load_job
from orchestrator.results.cost import cost_of
from orchestrator.store import StageStore, plan_for, pruned_trials
from orchestrator.trials.walk import replay_all

JOB = """
name = "search"
methods = ["stepwise"]
seeds = {seeds}
[task]
digits = [2, 2]
[model]
layers = 1
width = 64
heads = 4
[schedule]
stage_steps = {steps}
pretrain_steps = {pretrain}
consolidation_stages = 1
[training]
learning_rate = 1e-3
batch_size = 64
warmup_steps = 5
reset_optimizer = false
[evaluation]
examples = 200
speed_examples = 1
speed_batch = 8
[search]
type = "grid"
prune = true
[search.space]
schedule.tokens_per_stage = [2, 4, 8]
training.learning_rate = [1e-3, 1e-4]
"""


def run(job: Path, store: Path) -> float:
    """Wall time of ``stepwise run``."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    began = time.perf_counter()
    subprocess.run([STEPWISE, "run", job, "--store", store], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    quick = arguments(__doc__).quick
    numbers = {"seeds": [0], "steps": 20, "pretrain": 20} if quick else {"seeds": [0, 1], "steps": 60, "pretrain": 200}
    with tempfile.TemporaryDirectory() as folder:
        file, root = Path(folder) / "search.toml", Path(folder) / "store"
        file.write_text(JOB.format(**numbers))
        first = run(file, root)
        again = tuple(run(file, root) for _ in range(1 if quick else 5))
        store = StageStore(root)
        plan = plan_for(load_job(file), store)
        shared = sum(stage.spec.steps for stage in plan.unique_stages.values())
        pruned = pruned_trials(plan, root)
        cost = cost_of(replay_all(plan, store), pruned)
        executed, lost = cost.total.steps, cost.lost.steps
    alone = sum(trial.steps for trial in plan.trials)
    rows = [
        (f"{len(plan.trials)} independent trials", alone, 1.0),
        ("equal stages once", shared, alone / shared),
        (f"and {len(pruned)} trials stopped, {lost:,} steps lost to restarts", executed, alone / executed),
    ]
    table("Optimizer steps", ("search", "steps", "ratio"), [(name, f"{steps:,}", ratio) for name, steps, ratio in rows])
    table(
        "Wall time, seconds", ("command", "seconds"), [("first run", first), ("again", sorted(again)[len(again) // 2])]
    )
    finish(
        "search",
        Figure("steps of independent trials over those executed", (alone / executed,), 3.0),
        Figure("a finished search again", again, 10, "seconds", at_least=False),
        quick=quick,
        own_seconds=None,
    )


if __name__ == "__main__":
    main()
