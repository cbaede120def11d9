"""Tracking: shows in MLflow what the store holds. Importing this room does not import mlflow.

The store is the outbox. All that is sent is rebuilt from committed manifests and carries their timestamps. Sending it
again therefore changes nothing, and a server that was down gets it later.
"""

from orchestrator.tracking.follower import BackgroundTracker
from orchestrator.tracking.server import default_uri, frontier_url, ui_command, ui_environment
from orchestrator.tracking.tracker import Tracker, experiment_name
from orchestrator.tracking.variables import unused_uri

__all__ = [
    "BackgroundTracker",
    "Tracker",
    "default_uri",
    "experiment_name",
    "frontier_url",
    "ui_command",
    "ui_environment",
    "unused_uri",
]
