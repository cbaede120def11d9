"""A search on a real cluster: two nodes on loopback addresses, dashboard, job server, token authentication."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import manifests, start, stepwise

REPOSITORY = Path(__file__).parents[2]
STOPPED = 130
JOB = """
name = "small"
[task]
digits = [1, 2]
[model]
layers = 1
width = 32
heads = 2
[schedule]
tokens_per_stage = 3
stage_steps = 400
pretrain_steps = 20
consolidation_stages = 1
[training]
learning_rate = 3e-3
[evaluation]
speed_examples = 2
"""
PASSWORD = "canary-of-the-mlflow-password"  # noqa: S105


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """A folder with the cluster file of two running nodes, and a job."""
    pytest.importorskip("aiohttp_cors", reason="the dashboard needs ray[default]: pip install '.[cluster]'")
    port, token = free_port(), tmp_path / "token"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        "DASHBOARD_PORT": str(port),
        "TOKEN": str(token),
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }
    script = REPOSITORY / "clusters/local.sh"
    nodes = subprocess.Popen([script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = []
        for line in nodes.stdout:
            said.append(line)
            if line.startswith("dashboard"):
                break
        else:
            pytest.fail("".join(said))
        (tmp_path / "small.toml").write_text(JOB)
        (tmp_path / "cluster.yaml").write_text(
            f"address: http://127.0.0.1:{port}\n"
            f"store: {tmp_path / 'stepwise-store'}\n"
            f"token_file: {token}\n"
            "ship_package: true\n"
        )
        yield tmp_path
    finally:
        nodes.send_signal(signal.SIGTERM)
        nodes.wait(120)


def there(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return stepwise(*words, "--cluster", "cluster.yaml", cwd=cwd)


def everything_written(folder: Path) -> bytes:
    """Every file below the store, the reports and MLflow's database among them."""
    return b"".join(path.read_bytes() for path in (folder / "stepwise-store").rglob("*") if path.is_file())


def known_to_the_job_server(folder: Path) -> str:
    """Commands, environments and metadata of all submissions, as every user of the cluster can read them."""
    address = (folder / "cluster.yaml").read_text().split()[1]
    header = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/jobs/", headers=header)) as answer:  # noqa: S310
        return answer.read().decode()


def test_search_is_submitted_followed_stopped_and_continued_to_its_frontier(cluster: Path) -> None:
    token = (cluster / "token").read_text().strip()
    submitted = there("submit", "small.toml", cwd=cluster)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "http://127.0.0.1:" in submitted.stdout

    followed = start("logs", "-f", "small", "--cluster", "cluster.yaml", cwd=cluster)
    said = []
    for line in followed.stdout:
        said.append(line)
        if "stage 1/" in line:
            break
    status = json.loads(there("status", "small", "--json", cwd=cluster).stdout)
    assert status["submission"]["status"] == "RUNNING", "".join(said)
    assert status["trials"][0]["stages_done"] >= 1
    assert "runs already" in there("submit", "small.toml", cwd=cluster).stdout

    stopped = there("stop", "small", cwd=cluster)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    said.append(followed.communicate(timeout=60)[0])
    assert followed.returncode == STOPPED
    before = manifests(cluster)
    assert 0 < len(before) < 5
    assert "unfinished" in there("status", "small", cwd=cluster).stdout

    there("submit", "small.toml", cwd=cluster)
    finished = there("logs", "-f", "small", cwd=cluster)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "report.html" in finished.stdout
    after = manifests(cluster)
    assert {key: after[key] for key in before} == before
    frontier = json.loads(stepwise("report", "small", "--json", cwd=cluster).stdout)
    assert [point["removed_tokens"] for point in frontier] == [0, 0, 3, 6, 6]

    written = "".join(said) + finished.stdout + submitted.stdout + known_to_the_job_server(cluster)
    for secret in (token, PASSWORD):
        assert secret not in written
        assert secret.encode() not in everything_written(cluster)
    (cluster / "token").write_text("0" * 64)
    refused = there("status", "small", cwd=cluster)
    assert refused.returncode == 2
    assert "CLU004" in refused.stderr
