"""The store, the only state: stages are committed, adopted and verified here. It holds files and takes no decisions."""

from orchestrator.store.claims import Claim
from orchestrator.store.folders import inside, job_folder, read_record, sweep
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
from orchestrator.store.leftovers import tidy
from orchestrator.store.manifest import Manifest, number_versions
from orchestrator.store.searches import Pruned, proposals, pruned_trials, record_proposal, record_pruned
from orchestrator.store.snapshots import Snapshots
from orchestrator.store.stages import StageStore, unwritten

__all__ = [
    "Claim",
    "Manifest",
    "Pruned",
    "Snapshots",
    "StageStore",
    "check_fork_name",
    "inside",
    "is_fork",
    "job_folder",
    "jobs_like",
    "number_versions",
    "plan_for",
    "proposals",
    "pruned_trials",
    "read_record",
    "record_proposal",
    "record_pruned",
    "save_fork",
    "save_job",
    "saved_added_seeds",
    "saved_job",
    "saved_names",
    "saved_plan",
    "saved_plans",
    "sweep",
    "tidy",
    "unwritten",
]
