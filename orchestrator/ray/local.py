"""A Ray of a command's own: started on this machine for it alone and ended with it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.config import Resources
from orchestrator.errors import InputError, Problem, StepwiseError, first_line
from orchestrator.ray.placement import Placement, concurrent_trials, cores, gpus
from orchestrator.store import inside
from orchestrator.store.claims import claim, held

DRIVER = "stepwise_driver"
"""The custom resource that Tune's light driver functions take, so that they never take a training core."""

LIVING = ".lock"
"""The ending of the file beside a folder for Ray. Its command keeps it locked as long as it lives."""

WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # glibc would give the activations of every step back to the system: 12 to 25 % of a small model's step.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
}
"""The environment of every process of a search, wherever it runs."""

DRIVER_ENVIRONMENT = WORKER_ENVIRONMENT | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_INIT": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
}
"""The environment of the process that runs Tune."""

OWN_RAY = "STEPWISE_OWN_RAY"
"""The variable that is set in every process of a Ray that a command started for itself."""

_LOCAL_ENVIRONMENT = DRIVER_ENVIRONMENT | {
    OWN_RAY: "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_worker_maximum_startup_concurrency": "16",
    # Trials and their helpers are actors with processes of their own; those that Ray has ready would stay idle.
    "RAY_prestart_worker_first_driver": "0",
}


LONGEST_SOCKET = "/ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
"""What Ray adds to its folder. The kernel takes 107 bytes of a socket's path."""
MOST_FOLDER_BYTES = 107 - len(LONGEST_SOCKET)
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
"""Where a folder for Ray's sockets may be made."""


@contextmanager
def socket_folder() -> Iterator[str | None]:
    """Where Ray keeps its sockets for a while: None where it chooses well itself, else a short folder for us alone.

    Slurm and others name a TMPDIR that is too long. Raises ``InputError`` where no short folder can be made.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    chosen = os.environ.get(variable or "", "")
    if chosen.isascii() and len(chosen) <= MOST_FOLDER_BYTES:
        yield None
        return
    place = next((place for place in SHORT_FOLDERS if os.access(place, os.W_OK | os.X_OK)), None)
    if place is None:
        found = f"{chosen!r} takes {len(os.fsencode(chosen))} bytes; Ray's sockets have room for {MOST_FOLDER_BYTES}"
        fix = f"set RAY_TMPDIR to a folder of at most {MOST_FOLDER_BYTES} ASCII characters"
        raise InputError(Problem("RAY002", str(variable), found, fix))
    with TemporaryDirectory(prefix="stepwise-", dir=place, ignore_cleanup_errors=True) as folder:
        yield folder


@contextmanager
def local_ray(resources: Resources) -> Iterator[Placement]:
    """Start Ray for a block: all cores of this machine, a token, no dashboard. Raises ``StepwiseError``."""
    # Ray reads these when it is imported.
    os.environ.update(_LOCAL_ENVIRONMENT)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    with socket_folder() as folder:
        _start(folder)
        try:
            yield Placement(concurrent_trials(resources), {DRIVER: 1})
        finally:
            ray.shutdown()


def _start(folder: str | None) -> None:
    import ray

    try:
        ray.init(
            address="local",
            _temp_dir=folder,
            num_cpus=cores(),
            num_gpus=gpus(),
            resources={DRIVER: 1_000},
            include_dashboard=False,
            object_store_memory=100 << 20,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises bare ones where a process of its own did not come up or was killed
        found = first_line(error)
        raise StepwiseError(
            Problem("RAY001", "Ray", f"did not start: {found}", "run the same command again")
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets, so that work ends between two steps; then Ctrl-C ends it at once.

    Inside ``local_ray`` only: Ray sets a SIGTERM handler of its own, and an exception raised by a
    signal inside one of its callbacks would be lost.
    """
    interrupted = threading.Event()

    def note(number: int, frame: object) -> None:
        interrupted.set()
        os.write(2, b"stopping; what is committed stays\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ray_storage(store: Path, what: str = "state") -> Iterator[Path]:
    """Yield an empty folder that Ray's nodes share, and remove it afterwards, with those that killed commands left."""
    tidy_ray_storage(store)
    own = store / "ray" / f"{what}-{uuid.uuid4().hex[:8]}"
    inside(store, own.parent).mkdir(parents=True, exist_ok=True)
    lock = own.with_suffix(LIVING)
    while not (living := claim(lock)):  # another command tidied it away before it was locked
        pass
    own.mkdir()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.unlink(missing_ok=True)
        living.release()


def tidy_ray_storage(store: Path) -> None:
    """Remove the folders that killed commands left, of this host or another."""
    for lock in (store / "ray").glob(f"*{LIVING}"):
        if not held(lock):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
