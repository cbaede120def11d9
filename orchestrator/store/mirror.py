"""A copy of committed stages beyond this machine: at any URL that fsspec knows, as ``s3://bucket/prefix``.

The store itself is a folder: its claims are file locks, and its commits are links and forced writes. Object stores have
neither. The mirror is for machines that may be taken away for good: committed stages are copied there, and a store that
lacks one brings it back. A stage exists in the mirror when its manifest does, one object, written last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.errors import InputError, Problem, StepwiseError, StoreError, first_line, without_password
from orchestrator.files import SUFFIX, replace_file
from orchestrator.store.folders import job_folder
from orchestrator.store.jobs import SavedJob
from orchestrator.store.manifest import MANIFEST, Manifest, StoredFile, parsed
from orchestrator.store.stages import StageStore

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

RECORDS = ("proposals-*.json", "pruned/*.json", "job.json")
"""The files below a job's folder that say what its search decided: configurations, pruned trials, seeds. The last one
is copied last and stands for all."""
OBJECT_STORES = {"s3", "gs", "abfs"}
"""The fsspec protocols in which a put is seen whole or not at all, and which know no folders."""


class Mirror:
    """The mirror of a store. Every method may raise ``StepwiseError``, and every one can be repeated."""

    def __init__(self, url: str, store: StageStore) -> None:
        """Open the mirror. Raises ``InputError`` if fsspec knows no such URL."""
        import fsspec

        self.url, self.store = without_password(url), store
        self._sent: dict[str, str] = {}
        try:
            found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            fix = "pip install 'stepwise[s3]' for s3://, or the package that fsspec names"
            raise InputError(Problem("MIR001", self.url, first_line(error), fix)) from None
        self._files, self._root = found
        protocol = self._files.protocol
        self._in_folders = OBJECT_STORES.isdisjoint({protocol} if isinstance(protocol, str) else protocol)

    def pull_records(self, job: str) -> None:
        """Bring what a search decided, unless this store has its records."""
        folder, there = job_folder(self.store.root, job), f"{self._root}/jobs/{job}"
        if (folder / "job.json").exists():
            return
        with self._reachable():
            try:  # read first: many an implementation of ``find`` takes a mirror that does not answer for an empty one
                job_text = self._read(f"{there}/job.json").decode()
                SavedJob.model_validate_json(job_text)
            except (FileNotFoundError, ValidationError):
                return
            for name in (path.rpartition(f"jobs/{job}/")[2] for path in self._files.find(there)):
                if any(fnmatch(name, pattern) for pattern in RECORDS[:-1]) and ".." not in name:
                    replace_file(folder / name, self._read(f"{there}/{name}").decode())
            replace_file(folder / "job.json", job_text)  # last: while it is missing, everything is brought again

    def push(self, job: str, manifests: Iterable[Manifest]) -> None:
        """Copy a job's committed stages that the mirror lacks, and what its search decided."""
        with self._reachable():
            for manifest in manifests:
                self._push_stage(manifest)
            folder = job_folder(self.store.root, job)
            for path in (path for pattern in RECORDS for path in sorted(folder.glob(pattern))):
                name, text = f"jobs/{job}/{path.relative_to(folder)}", path.read_text("utf-8")
                if self._sent.get(name) != text:
                    self._put(name, text)
                    self._sent[name] = text

    def pull_stage(self, key: str) -> bool:
        """Bring a stage. Returns False if the mirror lacks it or a process here is training it."""
        there = f"{self._root}/stages/{key}"
        with self._reachable():
            manifest = self._manifest(key)
        if manifest is None:
            return False

        def fetch(file: StoredFile, path: Path) -> None:
            with self._reachable():
                self._files.get_file(f"{there}/{manifest.attempt}/{file.path}", str(path))

        claim = self.store.claim(key)
        if not claim:
            return False  # a live process is training it
        try:
            self.store.adopt(manifest, fetch)
        finally:
            claim.release()
        return True

    def _push_stage(self, manifest: Manifest) -> None:
        name = f"stages/{manifest.key}/{MANIFEST}"
        if name in self._sent:
            return
        if self._manifest(manifest.key) is None:
            folder = self.store.folder(manifest)
            for file in manifest.files:
                target = f"{self._root}/stages/{manifest.key}/{manifest.attempt}/{file.path}"
                self._make_parent(target)
                self._files.put_file(str(folder / file.path), target)
            self._put(name, manifest.model_dump_json(indent=1))
        self._sent[name] = manifest.attempt

    def _manifest(self, key: str) -> Manifest | None:
        """Return the mirror's manifest of a stage. A damaged one is ignored: the next push writes it anew."""
        try:
            data = self._read(f"{self._root}/stages/{key}/{MANIFEST}")
            return parsed(data, f"{self.url}/stages/{key}", key)
        except (FileNotFoundError, StoreError):
            return None

    def _read(self, path: str) -> bytes:
        data = self._files.cat_file(path)
        return data if isinstance(data, bytes) else data.encode()

    def _put(self, name: str, text: str) -> None:
        """Write a small file so that a kill leaves the old one or the new one."""
        target = f"{self._root}/{name}"
        if not self._in_folders:
            self._files.pipe_file(target, text.encode())
            return
        self._make_parent(target)
        self._files.pipe_file(target + SUFFIX, text.encode())
        self._files.mv(target + SUFFIX, target)

    def _make_parent(self, path: str) -> None:
        """Make the folder of a file. In an object store none is made: s3fs would make a bucket that is missing."""
        if self._in_folders:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Raise any failure as a ``StepwiseError`` that names the mirror: every file system has errors of its own."""
        try:
            yield
        except StepwiseError:
            raise
        except Exception as error:
            found = first_line(error)
            fix = "check that it exists and that you may write to it; what is committed stays in the store"
            raise StepwiseError(Problem("MIR002", self.url, found, fix)) from error
