"""The store: the only state. Commit, adopt, verify, and what the committed stages say together."""

from orchestrator.store.chain import Chain, Tried, replay, replay_all
from orchestrator.store.claims import Claim
from orchestrator.store.frontier import FrontierPoint, frontier
from orchestrator.store.jobs import job_folder, plan_for, save_job, saved_plans
from orchestrator.store.stages import Manifest, StageStore

__all__ = [
    "Chain",
    "Claim",
    "FrontierPoint",
    "Manifest",
    "StageStore",
    "Tried",
    "frontier",
    "job_folder",
    "plan_for",
    "replay",
    "replay_all",
    "save_job",
    "saved_plans",
]
