"""The detectors over runs that nobody touched: what they would have stopped, and what they would have let go.

    python jobs/studies/detectors/replay.py STORE JOB... > jobs/studies/detectors/results.json

The jobs were run with ``stability.restarts = false``, so every trial went to its end whatever it looked like. A trial
*ended well* at ``stability.min_exact_match`` or above, *collapsed* below half of it, and is *slow* in between: slow
ones are counted apart. A stage is *lost* if it belongs to a trial that collapsed and never again, from its end on, knew
half of the answers; all stages of trials that ended well are *good*. Every rule is asked after every block, with the
history that the stages before it make, and its answer changes nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from orchestrator.method.evaluate import mark_tokens
from orchestrator.report.interval import wilson
from orchestrator.runtime.data import prepare_data
from orchestrator.runtime.judging import Answers, expected
from orchestrator.stability import Blocks, Expected, History, Thresholds, judge
from orchestrator.store import Chain, StageStore, replay_all, saved_plan

HALF = 0.5
RULES = ("ours", "not finite", "5x mean")


@dataclass(frozen=True)
class Seen:
    """One stage: whether it was lost (None: of a slow trial), and the rules that would have ended it, with when."""

    trial: str
    stage: int
    lost: bool | None
    alarms: dict[str, float]
    """By rule: the share of the stage that had passed at its first alarm."""


def first_alarms(blocks: Blocks, held: Expected, history: History) -> Iterator[tuple[str, float]]:
    """Ours as a whole, and two that others use: only what is not finite, five times the mean of the stage so far."""
    rules = {
        "ours": lambda past: judge(past, held, history, Thresholds()) is not None,
        "not finite": lambda past: not past[-1].finite,
        "5x mean": lambda past: (
            len(past) > 1 and past[-1].train_loss_max > 5 * sum(b.train_loss for b in past[:-1]) / (len(past) - 1)
        ),
    }
    for name, rule in rules.items():
        at = next((n for n in range(1, len(blocks) + 1) if rule(blocks[:n])), None)
        if at:
            yield name, at / held.planned


def lost(chain: Chain) -> list[bool | None]:
    """Per stage that stands."""
    ends = [tried.manifest.metrics.exact_match for tried in chain.standing]
    asked = chain.trial.job.stability.min_exact_match
    if ends[-1] >= asked:
        return [False] * len(ends)
    if ends[-1] >= HALF * asked:
        return [None] * len(ends)
    return [max(ends[n:]) < HALF for n in range(len(ends))]


def seen(chain: Chain, answers: Answers) -> Iterator[Seen]:
    history = History()
    for tried, is_lost in zip(chain.standing, lost(chain), strict=True):
        blocks, spec = tried.manifest.metrics.blocks, tried.stage.spec
        if spec.removed_to and blocks:
            held = replace(expected(tried.stage, chain.trial, answers), rule="all")
            yield Seen(chain.trial.name, tried.stage.index, is_lost, dict(first_alarms(blocks, held, history)))
        history = history.grown(blocks)


def table(stages: list[Seen]) -> Iterator[dict[str, object]]:
    for rule in RULES:
        bad, good = [s for s in stages if s.lost], [s for s in stages if s.lost is False]
        hits, false = [s for s in bad if rule in s.alarms], [s for s in good if rule in s.alarms]
        yield {
            "rule": rule,
            "lost": len(bad),
            "found": len(hits),
            "recall_interval": wilson(len(hits) / len(bad), len(bad)) if bad else None,
            "good": len(good),
            "false_alarms": len(false),
            "false_alarm_interval": wilson(len(false) / len(good), len(good)) if good else None,
            "median_delay": median(s.alarms[rule] for s in hits) if hits else None,
            "slow": sum(s.lost is None for s in stages),
            "slow_stopped": sum(s.lost is None and rule in s.alarms for s in stages),
        }


def main(root: str, *names: str) -> None:
    store, stages, known = StageStore(Path(root)), [], set()
    for name in names:
        plan = saved_plan(name, store)
        if not plan:
            sys.exit(f"{name}: no job of {root}")
        data = prepare_data(plan.job, store)
        answers = Answers.of(data.train, mark_tokens(data.validation, data.tokenizer))
        for chain in replay_all(plan, store):
            end = chain.trial.stages[-1].key
            stages += seen(chain, answers) if chain.finished and end not in known else ()
            known.add(end)  # jobs may have trials in common
    print(json.dumps({"rules": list(table(stages)), "stages": [vars(stage) for stage in stages]}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
