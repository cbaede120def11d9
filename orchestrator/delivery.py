"""Deliveries in a thread of their own: the driver reports a committed stage without waiting or failing."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
SECONDS_BETWEEN_COMPLAINTS = 60.0


Followed = TypeVar("Followed")


class Background(ABC, Generic[Followed]):
    """A thread that wakes when it is notified and delivers what is new of the plan that it follows.

    While the receiver is away, it tries again with growing pauses.
    """

    behind: str
    """The words to print when a delivery failed."""
    rest = 0.0
    """A pause before the next delivery, as a multiple of the seconds that the last one took."""

    def __init__(self, plan: Followed, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._wake, self._closing, self._abandoned = Event(), Event(), Event()
        self._delivered, self.closed = False, False
        self._speaking = Lock()
        self._complained = float("-inf")
        self._thread = Thread(target=self._work, name=type(self).__name__, daemon=True)

    @abstractmethod
    def _deliver(self, closing: bool) -> None:
        """Deliver what is new. ``closing`` says that it is the last time. May raise anything."""

    def start(self) -> None:
        """Start the thread. It waits for the first ``notify``."""
        self._thread.start()

    def follow(self, plan: Followed) -> None:
        """Follow a longer plan from now on: the search has proposed another configuration."""
        self._plan = plan

    def notify(self) -> None:
        """Say that a stage was committed. Returns at once."""
        self._wake.set()

    def close(self, deadline_seconds: float) -> bool:
        """Deliver what is left, within a number of seconds. Returns whether all was. Prints nothing afterwards."""
        self._closing.set()
        self._wake.set()
        try:
            self._thread.join(deadline_seconds)
        finally:
            self._abandoned.set()
            with self._speaking:  # a hanging delivery outlives the command, whose last line has been printed
                self.closed = True
        return self._delivered

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._abandoned.is_set():
            self._wake.wait()
            self._wake.clear()
            closing, began = self._closing.is_set(), time.monotonic()
            try:
                self._deliver(closing)
            except Exception as error:
                self._complain(error)
                (self._abandoned if closing else self._closing).wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self._wake.set()
            else:
                pause = FIRST_PAUSE
                if closing:
                    self._delivered = True
                    return
                self._closing.wait(self.rest * (time.monotonic() - began))

    def _complain(self, error: Exception) -> None:
        with self._speaking:
            if not self.closed and time.monotonic() - self._complained >= SECONDS_BETWEEN_COMPLAINTS:
                self._complained = time.monotonic()
                self._say(f"{self.behind}. {error}")
