"""The store: the only state. Commit, adopt, verify, and what the committed stages say together."""

from orchestrator.store.chain import Chain, Tried, replay, replay_all
from orchestrator.store.claims import Claim
from orchestrator.store.folders import inside, job_folder, read_record, replace_file, sweep
from orchestrator.store.frontier import FrontierPoint, best_point, frontier, points_of
from orchestrator.store.jobs import (
    check_fork_name,
    is_fork,
    jobs_like,
    plan_for,
    save_fork,
    save_job,
    saved_added_seeds,
    saved_job,
    saved_names,
    saved_plan,
    saved_plans,
)
from orchestrator.store.naming import Place, find_stage
from orchestrator.store.searches import Pruned, proposals, pruned_trials, record_proposal, record_pruned
from orchestrator.store.snapshots import Snapshots
from orchestrator.store.stages import Manifest, StageStore, number_versions, unwritten

__all__ = [
    "Chain",
    "Claim",
    "FrontierPoint",
    "Manifest",
    "Place",
    "Pruned",
    "Snapshots",
    "StageStore",
    "Tried",
    "best_point",
    "check_fork_name",
    "find_stage",
    "frontier",
    "inside",
    "is_fork",
    "job_folder",
    "jobs_like",
    "number_versions",
    "plan_for",
    "points_of",
    "proposals",
    "pruned_trials",
    "read_record",
    "record_proposal",
    "record_pruned",
    "replace_file",
    "replay",
    "replay_all",
    "save_fork",
    "save_job",
    "saved_added_seeds",
    "saved_job",
    "saved_names",
    "saved_plan",
    "saved_plans",
    "sweep",
    "unwritten",
]
