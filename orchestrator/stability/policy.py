"""From the attempts of a trial to its next move: onward, a restart or the end (R §2.7). Pure functions.

After a failure a ladder is climbed while the trial stands before the same stage: another seed, fewer tokens per
stage, gentler training, then back over more and more good stages. The same seed would repeat the failure bit for bit
(R §0.4). Where consolidation is stuck it is the removals that failed: its own ladder goes back over them at once. That
ladder is not from R. All numbers are proposals (R §2.7), none is measured.

Fewer tokens per stage means that the schedule's clock runs slower: Δ/2 in T steps is Δ in 2T. So the stages of a trial
keep their indices and ends, whatever the ladder does inside them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

FAILED = ("diverged", "stuck")
"""The verdicts that are answered by a restart."""
LEAST_FACTOR = 1 / 8
"""The least share of the configured Δ, and of the learning rate, that a restart goes down to."""
RAISE_AFTER = 3
"""The good stages in a row before Δ rises again, and the rate and the steps go back (R §2.7)."""
RAISE = 1.5
"""The factor by which Δ rises then."""


@dataclass(frozen=True)
class Pace:
    """The way a stage is trained, as factors of the job's fields."""

    tokens_per_stage: float = 1.0
    learning_rate: float = 1.0
    steps: float = 1.0

    @property
    def stretch(self) -> float:
        """Return the steps of a stage over the configured ones."""
        return self.steps / self.tokens_per_stage

    def __str__(self) -> str:
        factors = {"Δ": self.tokens_per_stage, "rate": self.learning_rate, "steps": self.steps}
        return ", ".join(f"{name} x {factor:g}" for name, factor in factors.items() if factor != 1) or "as configured"


@dataclass(frozen=True)
class AttemptFacts:
    """The facts about a committed attempt that decide what follows from it."""

    stage: int
    """The stage's index in the trial."""
    verdict: Literal["good", "suspect", "diverged", "stuck"]
    steps: int
    """The optimizer steps that were really taken."""
    detector: str = ""
    pace: Pace = Pace()
    consolidation: bool = False
    """Whether nothing was left to remove."""
    exact_match: float = 0.0
    """The share of right answers at the end of an attempt that passed."""

    def __str__(self) -> str:
        return f"stage {self.stage} ({self.pace}): {self.verdict} by {self.detector}, {self.steps:,} steps"


Attempts = tuple[AttemptFacts, ...]
"""All attempts of a trial, in order."""


@dataclass(frozen=True)
class Budget:
    """The most that a trial may spend."""

    seed: int
    """The seed of the trial's job."""
    nominal_steps: tuple[int, ...]
    """The optimizer steps of every stage as configured."""
    attempts_per_stage: int = 6
    """The failed attempts of a stage since the last progress that are answered by a restart."""
    stage_compute: float = 4.0
    """The steps of a stage's failed attempts, as a multiple of its nominal steps at the pace of each."""
    run_compute: float = 3.0
    """The steps of all attempts and of what a restart repeats, as a multiple of the trial's nominal steps."""
    fruitless_attempts: int = 8
    """The failed attempts since a stage was good for the first time."""

    def exhausted(self, failures: list[AttemptFacts], here: list[AttemptFacts]) -> str:
        """Return in words which limit the failures since the last progress reach, those ``here`` at the last one's
        stage; nothing while none is reached.
        """
        stage = here[-1].stage
        lost = sum(a.steps / (a.pace.stretch * self.nominal_steps[stage]) for a in here)
        if not self.attempts_per_stage:
            return f"stage {stage} failed, and it is not to be restarted"
        if len(here) > self.attempts_per_stage:
            return f"stage {stage} failed {len(here)} times, at most {self.attempts_per_stage} restarts are allowed"
        if lost > self.stage_compute:
            return f"stage {stage} was lost {lost:.1f} times over, at most {self.stage_compute:g} are allowed"
        if len(failures) >= self.fruitless_attempts:
            return f"{len(failures)} failed attempts since the last new good stage"
        return ""

    def too_dear(self, attempts: Attempts, stage: int, pace: Pace) -> str:
        """Return in words that a restart from ``stage`` costs more than is left; nothing if it does not."""
        spent, planned = sum(a.steps for a in attempts), sum(self.nominal_steps)
        again = round(pace.stretch * sum(self.nominal_steps[stage : attempts[-1].stage + 1]))
        if spent + again <= self.run_compute * planned:
            return ""
        limit = f"more than {self.run_compute:g} times the trial's {planned:,}"
        return f"{spent:,} steps taken and {again:,} to repeat, {limit}"


@dataclass(frozen=True)
class Onward:
    """Go on to the next stage."""

    seed: int
    pace: Pace


@dataclass(frozen=True)
class Restart:
    """Go on from the end of the good stage before ``from_stage`` (from new weights at 0)."""

    from_stage: int
    seed: int
    pace: Pace
    number: int
    """The restarts of the failed stage since its last progress, with this one."""
    change: str
    """The words for what is done differently."""
    failure: str
    """The words for what failed."""

    @property
    def reason(self) -> str:
        """Return the failure and the restart in words."""
        return f"{self.failure}; restart {self.number} from stage {self.from_stage}: {self.change}"


@dataclass(frozen=True)
class GiveUp:
    """Finish with the frontier as it stands."""

    reason: str
    ladder_tried: tuple[str, ...]
    """A line for each failed attempt since the last progress."""


@dataclass(frozen=True)
class _Rung:
    """One way to try again. The factors act on the pace that met the obstacle."""

    words: str
    tokens_per_stage: float = 1.0
    learning_rate: float = 1.0
    steps: float = 1.0
    rewind: int = 0
    """The good stages to go back over."""
    to_removals: bool = False
    """Whether to go back, instead of that, before the stage of the last removal, to a stage that knew at least half as
    much as the best."""

    def slower(self, pace: Pace) -> Pace:
        """Return the pace after this rung."""
        return Pace(
            max(LEAST_FACTOR, pace.tokens_per_stage * self.tokens_per_stage),
            max(LEAST_FACTOR, pace.learning_rate * self.learning_rate),
            max(pace.steps, self.steps),
        )


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
    """Return the seed of an attempt: the first 63 bits of a SHA-256 (R §2.7). Attempt 0 keeps the job's seed."""
    if attempt == 0:
        return seed
    digest = hashlib.sha256(f"{seed}|{stage}|{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def next_seed(attempts: Attempts, stage: int, budget: Budget) -> int:
    """Return the seed of the next attempt at a stage."""
    return attempt_seed(budget.seed, stage, sum(a.stage == stage for a in attempts))


def next_pace(attempts: Attempts) -> Pace:
    """Return the pace of the stage after one that passed.

    Δ rises slowly, having fallen fast, and not before the stage that made it fall is passed.
    """
    pace, last = (attempts[-1].pace if attempts else Pace()), attempts[-RAISE_AFTER:]
    obstacle = max((a.stage for a in attempts if a.verdict in FAILED), default=0)
    if len(last) < RAISE_AFTER or {(a.verdict, a.pace) for a in last} != {("good", pace)} or last[-1].stage < obstacle:
        return pace
    return Pace(tokens_per_stage=min(1.0, RAISE * pace.tokens_per_stage))


def next_move(attempts: Attempts, budget: Budget) -> Onward | Restart | GiveUp:
    """Return what follows from the last of a trial's attempts."""
    last = attempts[-1]
    if last.verdict not in FAILED:
        return Onward(next_seed(attempts, last.stage + 1, budget), next_pace(attempts))
    failures = [a for a in attempts[_progress(attempts) :] if a.verdict in FAILED]
    here = [a for a in failures if a.stage == last.stage]
    if exhausted := budget.exhausted(failures, here):
        return GiveUp(exhausted, tuple(map(str, failures)))
    ladder = _ladder(last)
    climbed = [*takewhile(lambda a: _ladder(a) is ladder, reversed(here))]
    rung = ladder[min(len(climbed), len(ladder)) - 1]
    kept = _kept(attempts, rung)
    stage = kept[-1].stage + 1 if kept else 0
    pace = rung.slower(climbed[-1].pace)
    if too_dear := budget.too_dear(attempts, stage, pace):
        return GiveUp(too_dear, tuple(map(str, failures)))
    failure = f"stage {last.stage} {last.verdict} ({last.detector})"
    return Restart(stage, next_seed(attempts, stage, budget), pace, len(here), rung.words, failure)


def _ladder(failed: AttemptFacts) -> tuple[_Rung, ...]:
    return _CONSOLIDATION if failed.consolidation and failed.verdict == "stuck" else _LADDER


def _progress(attempts: Attempts) -> int:
    """Return how many attempts there were when a stage was last good for the first time."""
    first: dict[int, int] = {}
    for count, attempt in enumerate(attempts, start=1):
        if attempt.verdict == "good":
            first.setdefault(attempt.stage, count)
    return max(first.values(), default=0)


def _kept(attempts: Attempts, rung: _Rung) -> list[AttemptFacts]:
    """Return the good stages to start again from."""
    standing: list[AttemptFacts] = []
    for attempt in attempts:
        standing = [good for good in standing if good.stage < attempt.stage]
        if attempt.verdict == "good":
            standing.append(attempt)
    if not rung.to_removals:
        return standing[: max(0, len(standing) - rung.rewind)]
    last_removal = min(a.stage for a in attempts if a.consolidation) - 1
    before = [good for good in standing if good.stage < last_removal]
    best = max((good.exact_match for good in before), default=0.0)
    return before[: max((n for n, good in enumerate(before, start=1) if good.exact_match >= best / 2), default=0)]
