"""The place of MLflow's records in a store, and the server that shows them."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.config import Job
from orchestrator.tracking.variables import honoured
from orchestrator.tracking.views import view_path


def default_uri(store_root: Path) -> str:
    """Return the tracking URI of a job that names none: an SQLite file in the store."""
    path = str(store_root.absolute() / "mlflow.db")
    return "sqlite:///" + path.replace("%", "%25").replace("?", "%3F")


def artifact_folder(store_root: Path) -> Path:
    """Return the folder for artifacts that no server keeps."""
    return store_root.absolute() / "mlartifacts"


def ui_command(store_root: Path, port: int, host: str = "127.0.0.1") -> list[str]:
    """Return the command that serves the store's records. By default it listens on this machine only: MLflow asks for
    no password.

    Start it in a session of its own and end its process group: a killed server leaves a child that holds the port.
    """
    options = {
        "--backend-store-uri": default_uri(store_root),
        "--artifacts-destination": str(artifact_folder(store_root)),
        "--host": host,
        "--port": str(port),
        "--workers": "1",
    }
    return [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]


def ui_environment() -> dict[str, str]:
    """Return the environment of ``ui_command``: nothing that leads it elsewhere, no job runner (8 processes)."""
    return {**honoured(server=False), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def frontier_url(base: str, experiment_id: str, job: Job) -> str:
    """Return the page with a job's frontier on the server at ``base``. Several seeds are shown as mean and band."""
    view = "frontier-mean" if len(job.seeds) > 1 else "frontier"
    return f"{base.rstrip('/')}/{view_path(experiment_id, view)}"
