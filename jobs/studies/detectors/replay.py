"""The detectors over runs that nobody touched: what they would have stopped, and what they would have let go.

    python jobs/studies/detectors/replay.py STORE JOB... > jobs/studies/detectors/results.json

The jobs were run with ``stability.restarts = false``, so every trial went to its end whatever it looked like. A trial
*ended well* at ``stability.min_exact_match`` or above, *collapsed* below half of it, and is *slow* in between: slow
ones are counted apart. A stage is *lost* if it belongs to a trial that collapsed and never again, from its end on, knew
half of the answers; all stages of trials that ended well are *good*. Every rule is asked after every block, with the
history that the stages before it make, and its answer changes nothing. A trial is *found* at its first alarm: what
follows would not have been trained.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from orchestrator.method.evaluate import mark_tokens
from orchestrator.results.intervals import wilson
from orchestrator.stability import Blocks, Expected, History, Thresholds, judge
from orchestrator.store import StageStore, saved_plan
from orchestrator.trials.chain import Chain
from orchestrator.trials.data import prepare_data
from orchestrator.trials.judging import Answers, expected
from orchestrator.trials.walk import replay_all

HALF = 0.5
RULES = ("ours", "not finite", "5x mean")


@dataclass(frozen=True)
class Seen:
    """One stage: whether it was lost (None: of a slow trial), and the rules that would have ended it, with when."""

    trial: str
    stage: int
    lost: bool | None
    span: tuple[float, float]
    """Shares of the trial's steps that were taken where it begins and ends."""
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
            yield name, at / len(blocks)


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
    history, taken, total = History(), 0, sum(tried.steps for tried in chain.standing)
    for tried, is_lost in zip(chain.standing, lost(chain), strict=True):
        blocks, spec = tried.manifest.metrics.blocks, tried.stage.spec
        if spec.removed_to and blocks:
            held = replace(expected(tried.stage, chain.trial, answers), rule="all")
            span = taken / total, (taken + tried.steps) / total
            yield Seen(
                f"{chain.trial.job.name}:{chain.trial.name}",
                tried.stage.index,
                is_lost,
                span,
                dict(first_alarms(blocks, held, history)),
            )
        history, taken = history.grown(blocks), taken + tried.steps


def found(stages: list[Seen], rule: str) -> float | None:
    """The share of a trial's steps that were taken at its first alarm."""
    for stage in stages:
        if rule in stage.alarms:
            return stage.span[0] + stage.alarms[rule] * (stage.span[1] - stage.span[0])
    return None


def table(stages: list[Seen]) -> Iterator[dict[str, object]]:
    """Per rule: stages, then trials by how they ended."""
    trials = [[s for s in stages if s.trial == name] for name in dict.fromkeys(s.trial for s in stages)]
    for rule in RULES:
        bad, good = [s for s in stages if s.lost], [s for s in stages if s.lost is False]
        hits, false = [s for s in bad if rule in s.alarms], [s for s in good if rule in s.alarms]
        collapsed, well = [t for t in trials if t[-1].lost], [t for t in trials if t[-1].lost is False]
        shares = [share for t in collapsed if (share := found(t, rule)) is not None]
        yield {
            "rule": rule,
            "lost": len(bad),
            "found": len(hits),
            "recall_interval": interval(len(hits), len(bad)),
            "good": len(good),
            "false_alarms": len(false),
            "false_alarm_interval": interval(len(false), len(good)),
            "median_delay": median(s.alarms[rule] for s in hits) if hits else None,
            "slow": sum(s.lost is None for s in stages),
            "slow_stopped": sum(s.lost is None and rule in s.alarms for s in stages),
            "collapsed_trials": len(collapsed),
            "collapsed_trials_found": len(shares),
            "trial_recall_interval": interval(len(shares), len(collapsed)),
            "median_share_of_steps_when_found": median(shares) if shares else None,
            "good_trials": len(well),
            "good_trials_stopped": sum(found(t, rule) is not None for t in well),
            "slow_trials": sum(t[-1].lost is None for t in trials),
            "slow_trials_stopped": sum(found(t, rule) is not None for t in trials if t[-1].lost is None),
        }


def interval(count: int, of: int) -> tuple[float, float] | None:
    """Wilson's, 95 %."""
    return wilson(count / of, of) if of else None


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
            untouched = chain.finished and not chain.trial.job.stability.restarts
            stages += seen(chain, answers) if untouched and end not in known else ()
            known.add(end)  # jobs may have trials in common
    print(json.dumps({"rules": list(table(stages)), "stages": [vars(stage) for stage in stages]}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
