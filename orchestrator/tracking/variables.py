"""What MLflow reads from the environment: what of it is honoured, and what would lead the records elsewhere."""

from __future__ import annotations

import os

HONOURED = (
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_BOTO_",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_ENABLE_WORKSPACES",
    "MLFLOW_GCS_",
    "MLFLOW_HTTP_",
    "MLFLOW_KERBEROS_",
    "MLFLOW_MYSQL_",
    "MLFLOW_S3_",
    "MLFLOW_SQLALCHEMYSTORE_",
    "MLFLOW_WORKSPACE",
)
"""Beginnings of the names: how a server is reached and who asks. No other variable of MLflow has a say."""
SERVERS_ONLY = ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")
"""Those that mean a part of a server, which the store's own records are not."""
URI = "MLFLOW_TRACKING_URI"
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
"""MLflow's own let one call to a dead server last four minutes."""


def honoured(*, server: bool) -> dict[str, str]:
    """Return the environment without MLflow's variables that are not honoured, and with our defaults.

    ``server``: the records go to one that the job names.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_") or _counts(name, server)
    }
    return DEFAULTS | kept


def _counts(name: str, server: bool) -> bool:
    return name.startswith(HONOURED) and (server or not name.startswith(SERVERS_ONLY)) and not name.endswith("_URI")


def honour(*, server: bool) -> None:
    """Make that the environment of this process."""
    environment = honoured(server=server)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def unused_uri(uri: str | None) -> str:
    """Say that ``MLFLOW_TRACKING_URI`` is set and not used, if so. ``uri``: what the job names."""
    if os.environ.get(URI, uri) in (uri, ""):
        return ""
    return f"{URI} is set and not used: records go where tracking.uri of the job says, by default into the store"
