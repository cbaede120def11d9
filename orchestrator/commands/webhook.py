"""Tells somebody, by a POST to the URL in STEPWISE_WEBHOOK, of every trial that gives up and how the command ended.

The URL is in the environment and not in the job because such URLs are secrets: jobs are shown, stored and tracked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from orchestrator.delivery import Background
from orchestrator.errors import StepwiseError
from orchestrator.plan import Plan
from orchestrator.store import StageStore
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import replay_all

WEBHOOK = "STEPWISE_WEBHOOK"
TIMEOUT_SECONDS = 10


class Webhook(Background[Plan]):
    """Posts while the search runs and when it has ended; nothing without a URL. No failure of it shows the URL."""

    behind = "the webhook is behind; training goes on"
    rest = 4.0
    """The share of time for looking stays small with thousands of trials."""

    def __init__(self, plan: Plan, store: StageStore, say: Callable[[str], None], known: Iterable[Chain] = ()) -> None:
        """``known``: chains replayed before."""
        super().__init__(plan, say)
        self._chains = tuple(known)
        self._store, self._url = store, os.environ.get(WEBHOOK)
        self._told: set[str] = set()

    def start(self) -> None:
        if self._url:
            self._told = {chain.trial.name for chain in self._look() if chain.given_up}
            super().start()

    def end(self, code: int) -> None:
        """Post what has not been told, then how the command ended; say what went wrong. Raises nothing."""
        if not self._url:
            return
        self.close(TIMEOUT_SECONDS)
        try:
            self._post({"event": "ended", "exit_code": code, **self._outcome()})
        except (StepwiseError, OSError) as error:
            self._say(str(error))

    def _deliver(self, closing: bool) -> None:
        try:
            for chain in self._look():
                if chain.given_up and chain.trial.name not in self._told:
                    self._post({"event": "gave up", "trial": chain.trial.name, "reason": chain.given_up.reason})
                    self._told.add(chain.trial.name)
        except Exception:
            if closing:  # nobody waits for a receiver that is away
                self._abandoned.set()
            raise

    def _look(self) -> Sequence[Chain]:
        """Return the chains with what was committed since the last look."""
        self._chains = replay_all(self._plan, self._store, self._chains)
        return self._chains

    def _outcome(self) -> dict[str, Any]:
        chains = self._look()
        return {
            "trials": len(chains),
            "finished": sum(chain.finished for chain in chains),
            "gave_up": {chain.trial.name: chain.given_up.reason for chain in chains if chain.given_up},
        }

    def _post(self, news: dict[str, Any]) -> None:
        """Raises ``OSError``, which does not show the URL."""
        import requests

        document = {"job": self._plan.job.name, "store": str(self._store.root), **news}
        try:
            requests.post(self._url, json=document, timeout=TIMEOUT_SECONDS).raise_for_status()
        except (requests.RequestException, ValueError) as error:
            raise OSError(f"{WEBHOOK} was not told: {type(error).__name__}") from None
