"""Tells somebody how a search ended: one POST to the URL in STEPWISE_WEBHOOK.

The URL is in the environment and not in the job because such URLs are secrets: jobs are shown, stored and tracked.
"""

from __future__ import annotations

import os

from orchestrator.plan import Plan
from orchestrator.store import StageStore, replay_all

WEBHOOK = "STEPWISE_WEBHOOK"
TIMEOUT_SECONDS = 10


def post_outcome(plan: Plan, store: StageStore, code: int) -> str:
    """Post how the search ended. Returns what went wrong, without the URL; nothing else depends on it."""
    url = os.environ.get(WEBHOOK)
    if not url:
        return ""
    import requests

    chains = replay_all(plan, store)
    outcome = {
        "job": plan.job.name,
        "exit_code": code,
        "trials": len(chains),
        "finished": sum(chain.finished for chain in chains),
        "gave_up": {chain.trial.name: chain.given_up.reason for chain in chains if chain.given_up},
        "store": str(store.root),
    }
    try:
        requests.post(url, json=outcome, timeout=TIMEOUT_SECONDS).raise_for_status()
    except (requests.RequestException, ValueError) as error:
        return f"{WEBHOOK} was not told: {type(error).__name__}"
    return ""
