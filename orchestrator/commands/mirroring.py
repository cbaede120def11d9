"""A job and its mirror (``store/mirror.py``): what is there comes before training, what is committed goes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from orchestrator.delivery import Background
from orchestrator.errors import Problem, StepwiseError, StoreError
from orchestrator.labels import count
from orchestrator.plan import Plan
from orchestrator.store import StageStore, saved_job
from orchestrator.store.mirror import Mirror
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import advanced, replay, replay_all


class Mirroring:
    """A store's mirror in a command, or none: then nothing comes and nothing goes."""

    def __init__(self, url: str | None, store: StageStore, console: Console) -> None:
        """Raises ``InputError`` if fsspec knows no such URL."""
        self._mirror = Mirror(url, store) if url else None
        self._store, self._console = store, console
        self._copying: BackgroundMirror | None = None

    def bring_records(self, job: str) -> None:
        """Bring what a search decided, if the store lacks the job. Raises ``StepwiseError`` if nobody answers."""
        if self._mirror:
            with self._needed_by(job):
                self._mirror.pull_records(job)

    def bring_stages(self, plan: Plan) -> None:
        """Bring the stages of a plan that the store lacks. Without an answer a job that the store knows goes on.

        Raises ``StepwiseError`` for any other, and ``StoreError`` for a stage that is damaged there.
        """
        if self._mirror:
            with self._needed_by(plan.job.name):
                if came := bring(plan, self._mirror):
                    self._console.print(f"{count(came, 'stage')} came from {self._mirror.url}")

    def begin(self, plan: Plan, known: Iterable[Chain] = ()) -> None:
        """Copy what is committed from now on, and at once what was before. ``known``: chains replayed before."""
        if self._mirror:
            self._copying = BackgroundMirror(self._mirror, plan, self._console.print, known)
            self._copying.start()
            self._copying.notify()

    def follow(self, plan: Plan) -> None:
        """Say that a stage was committed, or planned. Returns at once."""
        if self._copying:
            self._copying.follow(plan)
            self._copying.notify()

    def close(self, deadline_seconds: float) -> None:
        """Copy what is left, for at most so long or until Ctrl-C; say so if that was not all."""
        if not self._copying:
            return
        done = False
        with (
            self._console.status("copying to the mirror; Ctrl-C leaves the rest to the next run"),
            suppress(KeyboardInterrupt),
        ):
            done = self._copying.close(deadline_seconds)
        if not done:
            self._console.print("the mirror has not got everything; the same command copies the rest")

    @contextmanager
    def _needed_by(self, job: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except StepwiseError as error:
            if not saved_job(job, self._store):
                found = "is a job that this store does not know, and the mirror may hold it"
                fix = "run again when it answers, or without a mirror to begin anew"
                raise StepwiseError(*error.problems, Problem("MIR003", job, found, fix)) from error
            self._console.print(f"going on with what this store has. {error}")


def bring(plan: Plan, mirror: Mirror) -> int:
    """Bring every stage of a plan's trials that the mirror has and the store has not. Returns how many came."""
    came = 0
    for trial in plan.trials:
        chain = replay(trial, mirror.store)
        while chain.next and mirror.pull_stage(chain.next.key):
            chain, came = advanced(chain, mirror.store), came + 1
    return came


def send(plan: Plan, mirror: Mirror, known: Iterable[Chain] = ()) -> tuple[Chain, ...]:
    """Copy every committed stage of a plan's trials that the mirror has not, and what the search decided.

    ``known``: chains replayed before. Returns them with what was committed since.
    """
    chains = replay_all(plan, mirror.store, known)
    mirror.push(plan.job.name, [attempt.manifest for chain in chains for attempt in chain.attempts])
    return chains


class BackgroundMirror(Background[Plan]):
    """Copies what is committed while training goes on. What it has not when it is closed, the next run copies."""

    behind = "the mirror is behind; the store has everything"

    def __init__(self, mirror: Mirror, plan: Plan, say: Callable[[str], None], known: Iterable[Chain] = ()) -> None:
        """``known``: chains replayed before."""
        super().__init__(plan, say)
        self._mirror, self._chains = mirror, tuple(known)

    def _deliver(self, closing: bool) -> None:
        try:
            self._chains = send(self._plan, self._mirror, self._chains)
        except Exception:
            if closing:  # nobody waits for a mirror that is away
                self._abandoned.set()
            raise
