"""The MLflow records in a store: one database, made by one command at a time, that goes where its store goes.

MLflow writes the full path of every artifact into it. A store that was moved, copied or restored elsewhere has other
paths, so whoever opens the database first puts them right.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.tracking.server import artifact_folder

DATABASE, LOCK = "mlflow.db", "mlflow.lock"
ARTIFACTS = "/mlartifacts/"
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns with URIs of artifacts."""
FOLDERS = (("logged_model_tags", "tag_value"), ("model_version_tags", "value"))
"""Columns with folders of the store: the tag ``stepwise.folder``."""


@contextmanager
def alone(store_root: Path) -> Iterator[None]:
    """Let no other command make the database or an experiment meanwhile. In a store that is read-only nobody does."""
    store_root.mkdir(parents=True, exist_ok=True)
    handle = None
    with suppress(OSError):
        handle = os.open(store_root / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def settle(store_root: Path) -> None:
    """Make the records of a store that was elsewhere point into it. Raises ``sqlite3.Error``."""
    root = store_root.absolute()
    if not (root / DATABASE).exists():
        return
    with closing(sqlite3.connect(root / DATABASE, timeout=30)) as database, database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        places = [uri for (uri,) in database.execute("SELECT artifact_location FROM experiments") if uri]
        for before in {uri.rpartition(ARTIFACTS)[0] for uri in places if ARTIFACTS in uri and uri.startswith("file:")}:
            path = Path(unquote(urlsplit(before).path))
            if path.resolve() == root.resolve():
                continue
            for table, column in LOCATIONS:
                _replace(database, table, column, f"{before}/", f"{root.as_uri()}/", tables)
            for table, column in FOLDERS:
                _replace(database, table, column, f"{path}/", f"{root}/", tables)
        default, elsewhere = (
            (artifact_folder(root) / "Default").as_uri(),
            "experiment_id = 0 AND artifact_location <> ?",
        )
        # asked first: a database that is read-only refuses also what would change nothing
        if database.execute(f"SELECT 1 FROM experiments WHERE {elsewhere}", (default,)).fetchone():  # noqa: S608
            database.execute(f"UPDATE experiments SET artifact_location = ? WHERE {elsewhere}", (default, default))  # noqa: S608


def _replace(database: sqlite3.Connection, table: str, column: str, before: str, after: str, tables: set[str]) -> None:
    if table in tables:
        begins = f"substr({column}, 1, ?) = ?"
        text = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {begins}"  # noqa: S608
        database.execute(text, (after, len(before) + 1, len(before), before))
