"""What to do after an attempt failed: a pure function of the attempts so far (R §2.7).

A ladder, climbed while a trial stands before the same stage: another seed, fewer tokens per stage,
gentler training, then back over more and more good stages. The same seed would repeat the failure
bit for bit (R §0.4). Where consolidation is stuck it is the removals that failed: its ladder, which is ours, goes
back over them at once. All other numbers here are proposals (R §2.7), none is measured.

Fewer tokens per stage means that the schedule's clock runs slower: Δ/2 in T steps is Δ in 2T. So the
stages of a trial keep their indices and ends, whatever the ladder does inside them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

FAILED = ("diverged", "stuck")
"""Verdicts that are answered by a restart."""
LEAST_FACTOR = 1 / 8
"""Neither Δ nor the learning rate is lowered below this share of the configured one."""
RAISE_AFTER = 3
"""Good stages in a row before Δ rises again, and the rate and the steps go back (R §2.7)."""
RAISE = 1.5


@dataclass(frozen=True)
class Pace:
    """How a stage is trained, as factors of what the job says."""

    tokens_per_stage: float = 1.0
    learning_rate: float = 1.0
    steps: float = 1.0

    @property
    def stretch(self) -> float:
        """Steps of a stage, over the configured ones."""
        return self.steps / self.tokens_per_stage

    def __str__(self) -> str:
        factors = {"Δ": self.tokens_per_stage, "rate": self.learning_rate, "steps": self.steps}
        return ", ".join(f"{name} x {factor:g}" for name, factor in factors.items() if factor != 1) or "as configured"


@dataclass(frozen=True)
class Attempt:
    """One execution of a stage, as recorded. ``stage``: its index in the trial. ``steps``: really taken."""

    stage: int
    verdict: Literal["good", "suspect", "diverged", "stuck"]
    steps: int
    detector: str = ""
    pace: Pace = Pace()
    consolidation: bool = False
    exact_match: float = 0.0
    """Of one that passed, at its end."""


@dataclass(frozen=True)
class Budget:
    """What a trial may spend. ``nominal_steps``: of every stage as configured."""

    seed: int
    nominal_steps: tuple[int, ...]
    attempts_per_stage: int = 6
    """Failed attempts of a stage, from its last progress on, that are answered by a restart."""
    stage_compute: float = 4.0
    """Steps of a stage's failed attempts, as a multiple of its nominal steps at the pace of each."""
    run_compute: float = 3.0
    """Steps of all attempts and of what a restart repeats, as a multiple of the trial's nominal steps."""
    fruitless_attempts: int = 8
    """Failed attempts since a stage was good for the first time."""


@dataclass(frozen=True)
class Restart:
    """Go on from the end of the good stage before ``from_stage`` (from new weights at 0)."""

    from_stage: int
    seed: int
    pace: Pace
    number: int
    """Restarts of the failed stage since its last progress, with this one."""
    change: str
    """What is done differently."""
    failure: str

    @property
    def reason(self) -> str:
        return f"{self.failure}; restart {self.number} from stage {self.from_stage}: {self.change}"


@dataclass(frozen=True)
class GiveUp:
    """Finish with the frontier as it stands. ``ladder_tried``: one line per failed attempt."""

    reason: str
    ladder_tried: tuple[str, ...]


@dataclass(frozen=True)
class _Rung:
    """``rewind``: good stages to go back over. ``to_removals``: instead of that, back before the stage of the last
    removal, to one that knew at least half as much as the best. The factors act on the pace that met the obstacle.
    """

    words: str
    tokens_per_stage: float = 1.0
    learning_rate: float = 1.0
    steps: float = 1.0
    rewind: int = 0
    to_removals: bool = False


_LADDER = (
    _Rung("another seed"),
    _Rung("half the tokens per stage", 0.5),
    _Rung("a quarter of the tokens per stage, half the rate, twice the steps", 0.25, 0.5, 2.0),
    _Rung("one good stage further back, half the tokens per stage", 0.5, rewind=1),
    _Rung("two good stages further back, half the tokens per stage", 0.5, rewind=2),
    _Rung("four good stages further back, half the tokens per stage", 0.5, rewind=4),
)

_SLOWER = "back before the last removals, a quarter of the tokens per stage"
_CONSOLIDATION = (
    _Rung(_SLOWER, 0.25, to_removals=True),
    _Rung(f"{_SLOWER}, half the rate", 0.25, 0.5, to_removals=True),
)
"""Half the tokens would cost as much again for little: with Δ 10 a seed of 3x2 digits ended at 0.07 and with Δ 5 at
0.25; begun again with a quarter of the 10 tokens a stage it ended at 1.00 (jobs/studies/restarts)."""


def attempt_seed(seed: int, stage: int, attempt: int) -> int:
    """The seed of an attempt: the first 63 bits of a SHA-256 (R §2.7); attempt 0 keeps the job's."""
    if attempt == 0:
        return seed
    digest = hashlib.sha256(f"{seed}|{stage}|{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def next_seed(attempts: tuple[Attempt, ...], stage: int, budget: Budget) -> int:
    """The seed of the next attempt at a stage."""
    return attempt_seed(budget.seed, stage, sum(a.stage == stage for a in attempts))


def next_pace(attempts: tuple[Attempt, ...]) -> Pace:
    """The pace of the stage after one that passed: Δ rises slowly, having fallen fast, and not before the stage that
    made it fall is passed.
    """
    pace, last = (attempts[-1].pace if attempts else Pace()), attempts[-RAISE_AFTER:]
    obstacle = max((a.stage for a in attempts if a.verdict in FAILED), default=0)
    if len(last) < RAISE_AFTER or {(a.verdict, a.pace) for a in last} != {("good", pace)} or last[-1].stage < obstacle:
        return pace
    return Pace(tokens_per_stage=min(1.0, RAISE * pace.tokens_per_stage))


def next_move(attempts: tuple[Attempt, ...], budget: Budget) -> Restart | GiveUp:
    """What to do about the last attempt, which failed."""
    last = attempts[-1]
    if last.verdict not in FAILED:
        raise ValueError(f"the last attempt is {last.verdict}: there is nothing to restart")
    failures = [a for a in attempts[_progress(attempts) :] if a.verdict in FAILED]
    here = [a for a in failures if a.stage == last.stage]
    if exhausted := _exhausted(attempts, failures, here, budget):
        return GiveUp(exhausted, tuple(map(_line, failures)))
    ladder = _ladder(last)
    same = [*takewhile(lambda a: _ladder(a) is ladder, reversed(here))]
    rung = ladder[min(len(same), len(ladder)) - 1]
    kept = _kept(attempts, rung)
    stage = kept[-1].stage + 1 if kept else 0
    pace, seed = _slower(same[-1].pace, rung), next_seed(attempts, stage, budget)
    if too_dear := _too_dear(attempts, stage, pace, budget):
        return GiveUp(too_dear, tuple(map(_line, failures)))
    failure = f"stage {last.stage} {last.verdict} ({last.detector})"
    return Restart(stage, seed, pace, len(here), rung.words, failure)


def _ladder(failed: Attempt) -> tuple[_Rung, ...]:
    return _CONSOLIDATION if failed.consolidation and failed.verdict == "stuck" else _LADDER


def _exhausted(attempts: tuple[Attempt, ...], failures: list[Attempt], here: list[Attempt], budget: Budget) -> str:
    """Which budget is spent, in words; nothing while none is."""
    stage = here[-1].stage
    lost = sum(a.steps / (a.pace.stretch * budget.nominal_steps[stage]) for a in here)
    if not budget.attempts_per_stage:
        return f"stage {stage} failed, and it is not to be restarted"
    if len(here) > budget.attempts_per_stage:
        return f"stage {stage} failed {len(here)} times, at most {budget.attempts_per_stage} restarts are allowed"
    if lost > budget.stage_compute:
        return f"stage {stage} was lost {lost:.1f} times over, at most {budget.stage_compute:g} are allowed"
    if len(failures) >= budget.fruitless_attempts:
        return f"{len(failures)} failed attempts since the last new good stage"
    return ""


def _too_dear(attempts: tuple[Attempt, ...], stage: int, pace: Pace, budget: Budget) -> str:
    """That the trial's budget does not last for a restart, in words; nothing if it does."""
    spent, planned = sum(a.steps for a in attempts), sum(budget.nominal_steps)
    again = round(pace.stretch * sum(budget.nominal_steps[stage : attempts[-1].stage + 1]))
    if spent + again <= budget.run_compute * planned:
        return ""
    limit = f"more than {budget.run_compute:g} times the trial's {planned:,}"
    return f"{spent:,} steps taken and {again:,} to repeat, {limit}"


def _progress(attempts: tuple[Attempt, ...]) -> int:
    """How many attempts there were when a stage was last good for the first time."""
    first: dict[int, int] = {}
    for count, attempt in enumerate(attempts, start=1):
        if attempt.verdict == "good":
            first.setdefault(attempt.stage, count)
    return max(first.values(), default=0)


def _standing(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """The good stages that the last attempt stands on, in order."""
    standing: list[Attempt] = []
    for attempt in attempts:
        standing = [good for good in standing if good.stage < attempt.stage]
        if attempt.verdict == "good":
            standing.append(attempt)
    return standing


def _kept(attempts: tuple[Attempt, ...], rung: _Rung) -> list[Attempt]:
    """The good stages to start again from."""
    standing = _standing(attempts)
    if not rung.to_removals:
        return standing[: max(0, len(standing) - rung.rewind)]
    last_removal = min(a.stage for a in attempts if a.consolidation) - 1
    before = [good for good in standing if good.stage < last_removal]
    best = max((good.exact_match for good in before), default=0.0)
    return before[: max((n for n, good in enumerate(before, start=1) if good.exact_match >= best / 2), default=0)]


def _slower(pace: Pace, rung: _Rung) -> Pace:
    return Pace(
        max(LEAST_FACTOR, pace.tokens_per_stage * rung.tokens_per_stage),
        max(LEAST_FACTOR, pace.learning_rate * rung.learning_rate),
        max(pace.steps, rung.steps),
    )


def _line(attempt: Attempt) -> str:
    return f"stage {attempt.stage} ({attempt.pace}): {attempt.verdict} by {attempt.detector}, {attempt.steps:,} steps"
