"""What to do after an attempt failed: a pure function of the attempts so far (R §2.7).

A ladder, climbed while a trial stands before the same stage: another seed, fewer tokens per stage,
gentler training, then back over more and more good stages. The same seed would repeat the failure
bit for bit (R §0.4). Consolidation that does not get there fails by the removals before it: its ladder goes back
over them at once. All numbers here are proposals (R §2.7), none is measured.

Fewer tokens per stage means that the schedule's clock runs slower: Δ/2 in T steps is Δ in 2T. So the
stages of a trial keep their indices and ends, whatever the ladder does inside them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

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
    exact_match: float = 1.0
    """At its end."""


@dataclass(frozen=True)
class Budget:
    """What a trial may spend. ``nominal_steps``: of every stage as configured."""

    seed: int
    nominal_steps: tuple[int, ...]
    attempts_per_stage: int = 6
    """Failed attempts of a stage, from its last progress on, that are answered by a restart."""
    stage_compute: float = 4.0
    """Steps of a stage's failed attempts, as a multiple of its nominal steps at the pace of each."""
    run_compute: float = 2.0
    """Steps of all attempts, as a multiple of the trial's nominal steps. Looked at before every restart."""
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
    """``rewind``: good stages to go back over. The factors act on the pace that met the obstacle."""

    words: str
    tokens_per_stage: float = 1.0
    learning_rate: float = 1.0
    steps: float = 1.0
    rewind: int = 0


_LADDER = (
    _Rung("another seed"),
    _Rung("half the tokens per stage", 0.5),
    _Rung("a quarter of the tokens per stage, half the rate, twice the steps", 0.25, 0.5, 2.0),
    _Rung("one good stage further back, half the tokens per stage", 0.5, rewind=1),
    _Rung("two good stages further back, half the tokens per stage", 0.5, rewind=2),
    _Rung("four good stages further back, half the tokens per stage", 0.5, rewind=4),
)


_CONSOLIDATION = (
    _Rung("back to where half of the answers were right, a quarter of the tokens per stage", 0.25),
    _Rung("back to where half of the answers were right, an eighth of the tokens per stage, half the rate", 0.125, 0.5),
)
"""For B3. Half the tokens would cost as much again, to be lost again, for little."""
KNOWS = 0.5
"""Exact match of a stage that a failed consolidation goes back to."""


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
    """The pace of the stage after one that passed: Δ rises slowly, having fallen fast."""
    pace, last = (attempts[-1].pace if attempts else Pace()), attempts[-RAISE_AFTER:]
    if len(last) < RAISE_AFTER or {(a.verdict, a.pace) for a in last} != {("good", pace)}:
        return pace
    return Pace(tokens_per_stage=min(1.0, RAISE * pace.tokens_per_stage))


def next_move(attempts: tuple[Attempt, ...], budget: Budget) -> Restart | GiveUp:
    """What to do about the last attempt, which failed."""
    last = attempts[-1]
    if last.verdict not in ("diverged", "stuck"):
        raise ValueError(f"the last attempt is {last.verdict}: there is nothing to restart")
    failures = [a for a in attempts[_progress(attempts) :] if a.verdict in ("diverged", "stuck")]
    here = [a for a in failures if a.stage == last.stage]
    if exhausted := _exhausted(attempts, failures, here, budget):
        return GiveUp(exhausted, tuple(map(_line, failures)))
    ladder = _CONSOLIDATION if last.detector == "B3" else _LADDER
    rung = ladder[min(len(here), len(ladder)) - 1]
    kept = _kept(_standing(attempts), rung, last)
    stage = kept[-1].stage + 1 if kept else 0
    pace, seed = _slower(here[0].pace, rung), next_seed(attempts, stage, budget)
    failure = f"stage {last.stage} {last.verdict} ({last.detector})"
    return Restart(stage, seed, pace, len(here), rung.words, failure)


def _exhausted(attempts: tuple[Attempt, ...], failures: list[Attempt], here: list[Attempt], budget: Budget) -> str:
    """Which budget is spent, in words; nothing while none is."""
    stage = here[-1].stage
    lost = sum(a.steps / (a.pace.stretch * budget.nominal_steps[stage]) for a in here)
    spent, planned = sum(a.steps for a in attempts), sum(budget.nominal_steps)
    if not budget.attempts_per_stage:
        return f"stage {stage} failed, and it is not to be restarted"
    if len(here) > budget.attempts_per_stage:
        return f"stage {stage} failed {len(here)} times, at most {budget.attempts_per_stage} restarts are allowed"
    if lost > budget.stage_compute:
        return f"stage {stage} was lost {lost:.1f} times over, at most {budget.stage_compute:g} are allowed"
    if spent > budget.run_compute * planned:
        return f"{spent:,} steps taken, more than {budget.run_compute:g} times the trial's {planned:,}"
    if len(failures) >= budget.fruitless_attempts:
        return f"{len(failures)} failed attempts since the last new good stage"
    return ""


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


def _kept(standing: list[Attempt], rung: _Rung, failed: Attempt) -> list[Attempt]:
    """What is left of them to start again from."""
    if failed.detector == "B3":
        knowing = [number for number, good in enumerate(standing, start=1) if good.exact_match >= KNOWS]
        return standing[: max(knowing, default=1)]
    return standing[: max(0, len(standing) - rung.rewind)]


def _slower(pace: Pace, rung: _Rung) -> Pace:
    return Pace(
        max(LEAST_FACTOR, pace.tokens_per_stage * rung.tokens_per_stage),
        max(LEAST_FACTOR, pace.learning_rate * rung.learning_rate),
        max(pace.steps, rung.steps),
    )


def _line(attempt: Attempt) -> str:
    return f"stage {attempt.stage} ({attempt.pace}): {attempt.verdict} by {attempt.detector}, {attempt.steps:,} steps"
