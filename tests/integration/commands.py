"""The real command in a process of its own, and what it left in its store."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

DEADLINE_SECONDS = 600
"""How long a command may take on a busy machine."""
TINY = """
[task]
digits = [1, 2]
[model]
layers = 1
width = 32
heads = 2
[evaluation]
speed_examples = 2
"""
"""Of a job file: what is learnt in seconds."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stepwise(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_SECONDS)


def start(*words: str | Path, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def manifests(folder: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("stepwise-store/stages/*/manifest.json")}


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every committed stage's weights."""
    return {
        key: file["sha256"]
        for key, manifest in manifests(folder).items()
        for file in manifest["files"]
        if file["path"] == "model.safetensors"
    }


def processes_of(folder: Path) -> list[int]:
    """Processes that have this test's folder in their environment: what a command would have left behind."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"STEPWISE_TEST={folder}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def kill_after_first_commit(process: subprocess.Popen[str], how: signal.Signals) -> str:
    """Wait for the first line that reports a committed stage, then send the signal. Returns all output."""
    timer = threading.Timer(DEADLINE_SECONDS, process.kill)
    timer.start()
    lines = []
    with process:
        for line in process.stdout:
            lines.append(line)
            if "exact match" in line:
                process.send_signal(how)
                break
        lines += process.stdout.readlines()
    timer.cancel()
    return "".join(lines)
