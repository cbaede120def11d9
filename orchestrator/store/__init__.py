"""The store: the only state. Commit, adopt, verify, and what the committed stages say together."""

from orchestrator.store.claims import Claim
from orchestrator.store.frontier import FrontierPoint, frontier
from orchestrator.store.jobs import job_folder, plan_for, save_job, saved_plans
from orchestrator.store.stages import Manifest, StageStore

__all__ = [
    "Claim",
    "FrontierPoint",
    "Manifest",
    "StageStore",
    "frontier",
    "job_folder",
    "plan_for",
    "save_job",
    "saved_plans",
]
