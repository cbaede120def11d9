"""A node that mounts another folder where the store should be, and whose clock is wrong: named before anything runs.

The node is real; its own mount namespace hides the store from it, and its Python says the time of 90 s ago.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import free_port, stepwise

pytestmark = pytest.mark.timeout(30 * 60)

LATE = "import time\nnow = time.time\ntime.time = lambda: now() - 90\n"
REPOSITORY = Path(__file__).parents[2]
HIDING = ("unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"')
RAY = (Path(sys.executable).parent / "ray", "start", "--block", "--num-cpus", "1", "--disable-usage-stats")
PORTS = ("--min-worker-port", "0", "--max-worker-port", "0", "--object-store-memory", "100000000")
PATIENCE_SECONDS = 600
JOB = 'name = "odd"\n[task]\ndigits = [1, 2]\n[schedule]\ntokens_per_stage = 3\nstage_steps = 6\npretrain_steps = 3\n'


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a cluster of two nodes, 127.0.0.2 the odd one; the store is ``store`` in the test's folder."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    late, store, token = tmp_path / "late", tmp_path / "store", tmp_path / "token"
    late.mkdir()
    (late / "sitecustomize.py").write_text(LATE)
    store.mkdir()
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}.items():
        monkeypatch.setenv(name, value)
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="odd-", dir="/tmp"))  # Ray's sockets want a short path
    head = [*RAY, *PORTS, "--head", "--port", port, "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
    odd = [*HIDING, store, *RAY, *PORTS, "--address", f"127.0.0.1:{port}", "--node-ip-address", "127.0.0.2"]
    nodes = [_started(folder / "head", head, {})]
    try:
        _await(nodes[0])
        nodes.append(_started(folder / "odd", odd, {"PYTHONPATH": f"{late}:{REPOSITORY}"}))
        yield f"127.0.0.1:{port}"
    finally:
        for node in nodes:
            os.killpg(node.pid, signal.SIGTERM)
            node.wait(PATIENCE_SECONDS)
            node.stdout.close()
        shutil.rmtree(folder)


def _started(folder: Path, command: list[object], environment: dict[str, str]) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        [*map(str, command), "--temp-dir", str(folder)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _await(node: subprocess.Popen[str]) -> None:
    said = ""
    for line in node.stdout:
        said += line
        if "Ray runtime started" in line:
            return
    pytest.fail(said)


def test_node_with_another_store_and_another_time_is_named(address: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(JOB)
    words = ("odd.toml", "--store", "store", "--address", address)
    end = time.monotonic() + PATIENCE_SECONDS
    while True:  # until the odd node has joined
        checked = stepwise("doctor", *words, "--json", cwd=tmp_path)
        checks = {check["name"]: check for check in json.loads(checked.stdout)}
        if "127.0.0.2" in checks.get("store", {}).get("found", "") or time.monotonic() > end:
            break
    assert checked.returncode == 1
    for name in ("store", "clocks"):
        assert not checks[name]["sound"]
        assert checks[name]["found"].startswith("127.0.0.2: ")
        assert checks[name]["fix"]

    refused = stepwise("run", *words, cwd=tmp_path)
    assert refused.returncode == 2
    assert "CLU010" in refused.stderr and "127.0.0.2" in refused.stderr
    assert not list((tmp_path / "store").glob("stages/*"))
