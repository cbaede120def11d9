"""A job file: its models, how it is read, and how every problem in it is reported at once.

The string under each field is its reference: ``stepwise schema``, ``stepwise init`` and the
documentation come from it.
"""

from orchestrator.config.cluster import Cluster, default_token_file, load_cluster, valid_cluster
from orchestrator.config.fields import (
    Evaluation,
    ExampleSource,
    Gsm8kTask,
    IcotKd,
    Method,
    MultiplicationTask,
    PretrainedModel,
    Resources,
    Schedule,
    ScratchModel,
    Section,
    Stability,
    TextTask,
    Tracking,
    Training,
)
from orchestrator.config.job import NAME, Job, Task
from orchestrator.config.reading import changed_job, load_job, parse_setting, placed, read_job, valid_job
from orchestrator.config.reference import reference
from orchestrator.config.search import MAX_CONFIGURATIONS, SEARCHABLE, Range, Scalar, Search
from orchestrator.config.template import job_toml, template

__all__ = [
    "MAX_CONFIGURATIONS",
    "NAME",
    "SEARCHABLE",
    "Cluster",
    "Evaluation",
    "ExampleSource",
    "Gsm8kTask",
    "IcotKd",
    "Job",
    "Method",
    "MultiplicationTask",
    "PretrainedModel",
    "Range",
    "Resources",
    "Scalar",
    "Schedule",
    "ScratchModel",
    "Search",
    "Section",
    "Stability",
    "Task",
    "TextTask",
    "Tracking",
    "Training",
    "changed_job",
    "default_token_file",
    "job_toml",
    "load_cluster",
    "load_job",
    "parse_setting",
    "placed",
    "read_job",
    "reference",
    "template",
    "valid_cluster",
    "valid_job",
]
