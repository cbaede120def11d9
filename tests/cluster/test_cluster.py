"""A search on a real cluster: two nodes on loopback addresses, dashboard, job server, token authentication."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TINY, manifests, stepwise
from loopback import Loopback, loopback

STOPPED = 130
JOB = f"""
name = "small"
{TINY}
[schedule]
tokens_per_stage = 3
stage_steps = 400
pretrain_steps = 20
consolidation_stages = 1
[training]
learning_rate = 3e-3
"""
PASSWORD = "canary-of-the-mlflow-password"  # noqa: S105


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Loopback]:
    with loopback(tmp_path, MLFLOW_TRACKING_PASSWORD=PASSWORD) as running:
        (tmp_path / "small.toml").write_text(JOB)
        yield running


def everything_written(folder: Path) -> bytes:
    """Every file below the store, the reports and MLflow's database among them."""
    return b"".join(path.read_bytes() for path in (folder / "stepwise-store").rglob("*") if path.is_file())


def known_to_the_job_server(folder: Path) -> str:
    """Commands, environments and metadata of all submissions, as every user of the cluster can read them."""
    address = (folder / "cluster.yaml").read_text().split()[1]
    header = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/jobs/", headers=header)) as answer:  # noqa: S310
        return answer.read().decode()


def test_search_is_submitted_followed_stopped_and_continued_to_its_frontier(cluster: Loopback) -> None:
    folder, there = cluster.folder, cluster.there
    token = (folder / "token").read_text().strip()
    submitted = there("submit", "small.toml")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "http://127.0.0.1:" in submitted.stdout

    followed = cluster.follow("small")
    said = []
    for line in followed.stdout:
        said.append(line)
        if "stage 0 of" in line:
            break
    status = json.loads(there("status", "small", "--json").stdout)
    assert status["submission"]["status"] == "RUNNING", "".join(said)
    assert status["trials"][0]["stages_done"] >= 1
    assert "runs already" in there("submit", "small.toml").stdout

    stopped = there("stop", "small")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    said.append(followed.communicate(timeout=60)[0])
    assert followed.returncode == STOPPED
    before = manifests(folder)
    assert 0 < len(before) < 5
    assert "unfinished" in there("status", "small").stdout

    there("submit", "small.toml")
    finished = there("logs", "-f", "small")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "report.html" in finished.stdout
    after = manifests(folder)
    assert {key: after[key] for key in before} == before
    frontier = json.loads(stepwise("report", "small", "--json", cwd=folder).stdout)
    assert [point["removed_tokens"] for point in frontier] == [0, 0, 3, 6, 6]

    written = "".join(said) + finished.stdout + submitted.stdout + known_to_the_job_server(folder)
    for secret in (token, PASSWORD):
        assert secret not in written
        assert secret.encode() not in everything_written(folder)
    (folder / "token").write_text("0" * 64)
    refused = there("status", "small")
    assert refused.returncode == 2
    assert "CLU004" in refused.stderr
