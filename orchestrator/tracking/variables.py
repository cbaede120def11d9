"""MLflow's environment variables: those that are honoured, and those that would lead the records elsewhere."""

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
"""The beginnings of the honoured names: the way to a server, and the credentials. MLflow's others are removed."""
SERVERS_ONLY = ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")
"""The variables that name a part of a server. The store's own records have no such parts."""
URI = "MLFLOW_TRACKING_URI"
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
"""The values of variables that are not set. With MLflow's own, one call to a dead server lasts four minutes."""


def honoured(*, server: bool) -> dict[str, str]:
    """Return the environment without MLflow's variables that are not honoured, and with ``DEFAULTS``.

    ``server`` says that the records go to a server that the job names.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_") or _counts(name, server)
    }
    return DEFAULTS | kept


def _counts(name: str, server: bool) -> bool:
    return name.startswith(HONOURED) and (server or not name.startswith(SERVERS_ONLY)) and not name.endswith("_URI")


def honour(*, server: bool) -> None:
    """Set the environment of this process to what ``honoured`` returns."""
    environment = honoured(server=server)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def unused_uri(uri: str | None) -> str:
    """Return a line if ``MLFLOW_TRACKING_URI`` is set and is not the job's ``uri``, else nothing."""
    if os.environ.get(URI, uri) in (uri, ""):
        return ""
    return f"{URI} is set and not used: records go where tracking.uri of the job says, by default into the store"
