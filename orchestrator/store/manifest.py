"""The record of a committed stage: what it says, how it is read, and whether the stage's folder agrees with it."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from orchestrator import method
from orchestrator.errors import Problem, StoreError, first_line
from orchestrator.files import sha256
from orchestrator.identity import digest
from orchestrator.method.stage import PASSED, Record, StageMetrics, Verdict

FORMAT = 1
MANIFEST = "manifest.json"
NUMERIC = ("torch", "transformers", "tokenizers", "numpy", "peft")
"""The libraries whose version may change the numbers of a stage. The last need not be installed."""
REPAIR = "`stepwise fsck --repair` removes the stage, the next run trains it again"


class StoredFile(Record):
    """A file of the committed attempt."""

    path: str
    """The file's path below the attempt's folder."""
    size: int
    """A number of bytes."""
    sha256: str

    @classmethod
    def of(cls, path: Path, folder: Path) -> StoredFile:
        """Describe a file as it is now. Reads all of it."""
        return cls(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256(path))


class Manifest(Record):
    """The record of a committed stage."""

    format: int = FORMAT
    key: str
    parent: str | tuple[str, ...] | None
    identity: dict[str, Any]
    attempt: str = Field(pattern=r"^[0-9a-f]{12}$")
    """The name of the folder, below the stage's, that holds the files."""
    verdict: Verdict
    metrics: StageMetrics
    files: tuple[StoredFile, ...]
    reason: str = ""
    """The reason why the verdict is not ``good``."""
    versions: dict[str, str]
    committed_at: float
    """The moment of the commit, in seconds since the epoch. It is the time of the stage's points in MLflow."""

    @property
    def passed(self) -> bool:
        """Return whether the chain goes on from here."""
        return self.verdict in PASSED


def parsed(data: bytes, where: str, key: str) -> Manifest:
    """Return the manifest of a stage. Raises ``StoreError`` for bytes that are none, or another stage's."""
    try:
        document = json.loads(data, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        manifest = Manifest.model_validate(document)
    except (ValueError, ValidationError, RecursionError) as error:
        found = f"not a manifest: {first_line(error)}"
        raise StoreError(Problem("CKP009", where, found, REPAIR)) from None
    if manifest.key != key or manifest.format != FORMAT:
        found = f"names stage {manifest.key}, format {manifest.format}"
        raise StoreError(Problem("CKP009", where, found, REPAIR))
    return manifest


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def damage(folder: Path, manifest: Manifest) -> list[Problem]:
    """Return a problem for every committed file of an attempt's folder that is not as it was committed."""
    record, problems = folder.parent / MANIFEST, []
    try:
        stages, folder = folder.parents[1].resolve(), folder.resolve()
        if not folder.is_relative_to(stages):  # a link in the place of the stage's or the attempt's folder
            return [Problem("CKP010", str(folder), "lies outside the store", REPAIR)]
        for file in manifest.files:
            path = folder / file.path
            if not path.resolve().is_relative_to(folder) or path.is_symlink():
                problems.append(Problem("CKP010", str(path), "leaves the stage's folder", REPAIR))
            elif not path.is_file():
                problems.append(Problem("CKP001", str(path), "missing", REPAIR))
            elif path.stat().st_size != file.size:
                found = f"{path.stat().st_size:,} bytes, {file.size:,} committed"
                problems.append(Problem("CKP002", str(path), found, REPAIR))
            elif sha256(path) != file.sha256:
                problems.append(Problem("CKP004", str(path), "its SHA-256 differs from the committed one", REPAIR))
    except (OSError, ValueError) as error:
        found = f"names a file that cannot be read: {error}"
        return [Problem("CKP015", str(record), found, REPAIR)]
    return problems


def foreign(folder: Path, manifest: Manifest) -> list[Path]:
    """Return what lies in the committed attempt's folder and is none of its files."""
    named = {folder / MANIFEST, *(folder / file.path for file in manifest.files)}
    inside = {parent for path in named for parent in path.parents}
    return sorted(path for path in folder.rglob("*") if path not in named and path not in inside)


@cache
def number_versions() -> dict[str, str]:
    """Return what the last bits of a stage's numbers depend on.

    That is the versions of the libraries, and a hash of the source of ``method/`` with its folders.
    """
    sources = sorted(Path(method.__file__).parent.rglob("*.py"))
    libraries = {name: version(name) for name in NUMERIC if find_spec(name)}
    return {**libraries, "method": digest([path.read_text("utf-8") for path in sources])[:12]}
