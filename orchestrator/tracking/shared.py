"""Serves the store's MLflow to several people: with a password, under listed host names, with private secrets."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.errors import InputError, Problem
from orchestrator.identity import digest
from orchestrator.tracking.server import ui_command, ui_environment

ADMIN = "admin"
EVERYWHERE = "0.0.0.0"  # noqa: S104
"""The host that means every address of the machine and is no address itself."""
_CONFIG = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{database}
admin_username = {admin}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
"""


@dataclass(frozen=True)
class SharedServer:
    """The way to start a shared server."""

    command: list[str]
    environment: dict[str, str]
    password_file: Path
    """The file with the password of the user ``admin``."""
    host: str
    """The address that it listens on."""
    address: str
    """The host name for a browser: one that it answers to."""


def shared_server(store_root: Path, host: str, port: int, names: Sequence[str]) -> SharedServer:
    """Return a server that answers only to ``names`` and its own address, and only with a password.

    Its secrets lie outside the store, in ``~/.config/stepwise``, and are made once. Raises ``InputError``.
    """
    if find_spec("flask_wtf") is None:
        raise InputError(Problem("CLI006", "--shared", "MLflow's password app is not installed", _INSTALL))
    folder = Path.home() / ".config/stepwise" / f"mlflow-{digest(str(store_root.absolute()))[:8]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = _private(folder / "auth.ini", _CONFIG.format(database=folder / "auth.db", admin=ADMIN))
    password = _private(folder / "password", secrets.token_urlsafe(24))
    cookie_key = _private(folder / "cookie-key", secrets.token_hex(32))
    own = [] if host == EVERYWHERE else [host]
    known: list[str] = list(dict.fromkeys([*names, *own, "127.0.0.1", "localhost"]))
    allowed = ",".join(f"{name},{name}:{port}" for name in known)
    return SharedServer(
        [*ui_command(store_root, port, host), "--app-name", "basic-auth", "--allowed-hosts", allowed],
        {
            **ui_environment(),
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": password.read_text(),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": cookie_key.read_text(),
        },
        password,
        host,
        address=known[0],
    )


_INSTALL = "pip install 'stepwise[server]'"


def _private(file: Path, text: str) -> Path:
    """Return a file, made with mode 0600 if it is missing. Raises ``InputError`` if others can read it."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(text)
    except FileExistsError:
        mode = file.stat().st_mode & 0o777
        if mode & 0o077:
            found = f"others can read it, mode {mode:04o}"
            raise InputError(Problem("CLI007", str(file), found, f"chmod 600 {file}")) from None
    return file
