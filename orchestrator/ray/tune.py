"""Runs a job's trials on Ray: one of the command's own or a running one. The search itself is ``ray/searching.py``."""

from __future__ import annotations

import threading
from collections.abc import Callable

from orchestrator.errors import Problem, TrialError
from orchestrator.ray.joined import Attachment, attached_ray
from orchestrator.ray.local import interruptible, local_ray, ray_storage, tidy_ray_storage
from orchestrator.trials.running import RunningJob

TICK_SECONDS = 0.5
LEAVE_SECONDS = 10.0
"""The most that Tune's thread is given to end once the command ends."""


def run_trials(running: RunningJob, tick: Callable[[], None], at: Attachment | None = None) -> None:
    """Run every trial that has something left to do, calling ``tick`` twice a second meanwhile.

    On a Ray of its own, or ``at`` a running one. Raises ``TrialError`` with every trial's problem when all that could
    run has run, and ``KeyboardInterrupt`` when it was interrupted.
    """
    store, resources = running.store, running.plan.job.resources
    if not running.left:
        tidy_ray_storage(store.root)  # the last command may have been killed at its very end
        return
    problems: list[Problem] = []
    ray = attached_ray(at, resources, store.root) if at else local_ray(resources)
    with ray_storage(store.root) as storage, ray as placement, interruptible() as interrupted:
        from orchestrator.ray.searching import LEAVING, TuneSearch

        LEAVING.clear()
        search = TuneSearch(running.plan, store, running.open_chains, placement, storage)
        thread = threading.Thread(target=lambda: problems.extend(search.run()), daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not interrupted.is_set():
                tick()
                thread.join(TICK_SECONDS)
        finally:  # Tune must not ask a Ray that is gone, also when a tick failed
            if thread.is_alive():
                LEAVING.set()
                thread.join(LEAVE_SECONDS)
    if interrupted.is_set():
        raise KeyboardInterrupt
    tick()
    if problems:
        raise TrialError(*problems)
