"""The plan: a job's trials and their stages, known before anything is done."""

from orchestrator.plan.content import Content
from orchestrator.plan.plan import Plan, PlannedStage, Trial, build_plan, configured_jobs, read_chain

__all__ = ["Content", "Plan", "PlannedStage", "Trial", "build_plan", "configured_jobs", "read_chain"]
