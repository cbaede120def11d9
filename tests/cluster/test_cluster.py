"""A search on a real cluster: two nodes on loopback addresses, dashboard, job server, token authentication.

The whole walk of a user: submit, follow, lose a node, see it go on, stop, submit again, look at the frontier.
"""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TINY, manifests, stepwise
from loopback import PATIENCE_SECONDS, Loopback, await_that, first_stages, loopback
from pages import Line, lines_at, served

pytestmark = pytest.mark.timeout(60 * 60)

STOPPED = 130
TRIALS, REMOVED = 2, [0, 0, 3, 6, 6]
JOB = f"""
name = "small"
seeds = [0, 1]
{TINY}
[schedule]
tokens_per_stage = 3
stage_steps = 1500
pretrain_steps = 100
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


def curves(points: list[dict]) -> set[Line]:
    """Of every trial its last exact match at each removed count."""
    of_trial: dict[str, dict[float, float]] = defaultdict(dict)
    for point in points:
        of_trial[point["trial"]][point["removed_tokens"]] = point["exact_match"]
    return {tuple(curve.items()) for curve in of_trial.values()}


def test_search_outlives_a_lost_node_and_a_stop_and_its_frontier_is_in_the_browser(cluster: Loopback) -> None:
    folder, there = cluster.folder, cluster.there
    token = (folder / "token").read_text().strip()
    submitted = there("submit", "small.toml")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "http://127.0.0.1:" in submitted.stdout

    followed = cluster.follow("small")
    said = first_stages(followed.stdout, TRIALS)
    assert cluster.workers("127.0.0.2"), said
    with cluster.stopped("127.0.0.1"):
        cluster.lose("127.0.0.2")
        lost = manifests(folder)
        cluster.join("127.0.0.3")
        await_that(lambda: cluster.workers("127.0.0.3"), "the trial of the lost node goes on on the new one")
    await_that(lambda: len(manifests(folder)) > len(lost), "a stage is committed after the loss")
    status = json.loads(there("status", "small", "--json").stdout)
    assert status["submission"]["status"] == "RUNNING", said
    assert all(trial["stages_done"] >= 1 for trial in status["trials"])
    assert "runs already" in there("submit", "small.toml").stdout

    stopped = there("stop", "small")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    said += followed.communicate(timeout=PATIENCE_SECONDS)[0]
    assert followed.returncode == STOPPED, said
    before = manifests(folder)
    assert lost.items() <= before.items()
    assert len(before) < TRIALS * len(REMOVED)
    assert "unfinished" in there("status", "small").stdout

    assert "is submitted" in there("submit", "small.toml").stdout
    finished = cluster.follow("small")
    ending = finished.communicate(timeout=PATIENCE_SECONDS)[0]
    assert finished.returncode == 0, ending
    assert "report.html" in ending
    assert before.items() <= manifests(folder).items()
    frontier = json.loads(stepwise("report", "small", "--json", cwd=folder).stdout)
    assert [point["removed_tokens"] for point in frontier] == TRIALS * REMOVED
    with served(folder / "stepwise-store") as page:
        assert curves(frontier) <= lines_at(page.removesuffix("-mean"))

    written = said + ending + submitted.stdout + known_to_the_job_server(folder)
    for secret in (token, PASSWORD):
        assert secret not in written
        assert secret.encode() not in everything_written(folder)
    (folder / "token").write_text("0" * 64)
    refused = there("status", "small")
    assert refused.returncode == 2
    assert "CLU018" in refused.stderr
