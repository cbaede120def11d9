"""Who may use a cluster: its token, the file it lies in, and whether the cluster asks for one at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import InputError, Problem

if TYPE_CHECKING:
    import requests

TIMEOUT_SECONDS = 10
AUTHENTICATION_MODE = "/api/authentication_mode"
"""Public, on a cluster with authentication too."""


def token(file: Path) -> str:
    """The cluster's token: RAY_AUTH_TOKEN, else what the file holds. Raises ``InputError``."""
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    check_private(file)
    found = file.read_text().strip()
    if not found:
        raise InputError(Problem("CLU004", str(file), "is empty", "put the cluster's token into it"))
    return found


def check_private(file: Path) -> None:
    """Raises ``InputError`` unless the file is there and its owner alone can read it."""
    try:
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        fix = f"the cluster's token belongs there: (umask 077; openssl rand -hex 32 > {file})"
        raise InputError(Problem("CLU004", str(file), f"no token: {error.strerror}", fix)) from None
    if mode & 0o077:
        raise InputError(Problem("CLU005", str(file), f"others can read it, mode {mode:04o}", f"chmod 600 {file}"))


def document(answer: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer, empty if it is none: whatever listens there need not be Ray."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_asks_for_token(dashboard: str, allow_unauthenticated: bool, allowed_by: str) -> bool:
    """Whether the cluster asks for a token. Raises ``InputError`` if it does not and nothing allows that.

    Raises ``OSError`` if the dashboard does not answer.
    """
    import requests

    answer = requests.get(dashboard + AUTHENTICATION_MODE, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    asks = answer.ok and document(answer).get("authentication_mode") == "token"
    if not asks and not allow_unauthenticated:
        raise _open(dashboard, _NO_TOKEN, allowed_by)
    return asks


def check_turns_strangers_away(gcs: str, allowed_by: str) -> None:
    """Raises ``InputError`` unless the Ray at this address refuses who shows no token, as we do here."""
    try:
        import grpc
        from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
        from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    except ImportError:
        raise _open(gcs, f"{_UNKNOWN}: pip install 'stepwise[cluster]'", allowed_by) from None
    with grpc.insecure_channel(gcs, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise _open(gcs, f"{_UNKNOWN}: {error.code().name}", allowed_by) from None
            return
    raise _open(gcs, _NO_TOKEN, allowed_by)


_NO_TOKEN = "asks for no token: whoever reaches it can run code there"  # noqa: S105
_UNKNOWN = "cannot be told whether it asks for a token"


def _open(where: str, found: str, allowed_by: str) -> InputError:
    return InputError(Problem("CLU006", where, found, f"start it with RAY_AUTH_MODE=token, or {allowed_by}"))
