"""Sees to it that a cluster is not open to all: its token, the token's file, and whether the cluster asks for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import InputError, Problem

if TYPE_CHECKING:
    import requests

TIMEOUT_SECONDS = 10
AUTHENTICATION_MODE = "/api/authentication_mode"
"""The path that answers without a token, on a cluster with authentication too."""


def token(file: Path) -> str:
    """Return the cluster's token: RAY_AUTH_TOKEN, else the content of the file. Raises ``InputError``."""
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    check_private(file)
    found = file.read_text().strip()
    if not found:
        raise InputError(Problem("CLU004", str(file), "is empty", "put the cluster's token into it"))
    return found


def check_private(file: Path) -> None:
    """Raise ``InputError`` unless the file is there and its owner alone can read it."""
    try:
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        fix = f"the cluster's token belongs there: (umask 077; openssl rand -hex 32 > {file})"
        raise InputError(Problem("CLU004", str(file), f"no token: {error.strerror}", fix)) from None
    if mode & 0o077:
        raise InputError(Problem("CLU005", str(file), f"others can read it, mode {mode:04o}", f"chmod 600 {file}"))


def document(answer: requests.Response) -> dict[str, Any]:
    """Return the JSON object of an answer, empty if it is none: the program that listens there need not be Ray."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_asks_for_token(dashboard: str, allow_unauthenticated: bool, allowed_by: str) -> bool:
    """Return whether the cluster asks for a token. Raises ``InputError`` if it does not and nothing allows that.

    Raises ``OSError`` if the dashboard does not answer.
    """
    import requests

    answer = requests.get(dashboard + AUTHENTICATION_MODE, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    asks = answer.ok and document(answer).get("authentication_mode") == "token"
    if not asks and not allow_unauthenticated:
        raise _open(dashboard, _NO_TOKEN, allowed_by)
    return asks


def check_turns_strangers_away(gcs: str, allowed_by: str) -> None:
    """Raise ``InputError`` unless the Ray at this address refuses a call without a token."""
    from orchestrator.ray.private import refusal_of_strangers

    try:
        refusal = refusal_of_strangers(gcs, TIMEOUT_SECONDS)
    except ImportError:
        raise _open(gcs, f"{_UNKNOWN}: pip install 'stepwise[cluster]'", allowed_by) from None
    if refusal is None:
        raise _open(gcs, _NO_TOKEN, allowed_by)
    if refusal != "UNAUTHENTICATED":
        raise _open(gcs, f"{_UNKNOWN}: {refusal}", allowed_by)


_NO_TOKEN = "asks for no token: anyone who reaches it can run code there"  # noqa: S105
_UNKNOWN = "cannot be told whether it asks for a token"


def _open(where: str, found: str, allowed_by: str) -> InputError:
    return InputError(Problem("CLU006", where, found, f"start it with RAY_AUTH_MODE=token, or {allowed_by}"))
