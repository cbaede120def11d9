"""A machine is gone for good, its disk with it: the job goes on elsewhere from what lies in S3 (a local ``moto``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import manifests, stepwise
from test_tracking import commit_all

from orchestrator.config import load_job
from orchestrator.plan import build_plan
from orchestrator.store import StageStore

URL = "s3://stages/search"
SECRET = "canary-of-the-s3-key"  # noqa: S105
JOB = """
name = "small"
methods = ["stepwise"]
[task]
digits = [1, 2]
[schedule]
tokens_per_stage = 3
stage_steps = 20
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The bucket ``stages`` of an S3 on a loopback port, in the environment of every command."""
    pytest.importorskip("s3fs", reason="needs pip install '.[s3]'")
    moto = pytest.importorskip("moto.server", reason="needs pip install 'moto[s3,server]'")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="stages")
    yield
    server.stop()


def test_job_goes_on_from_the_bucket(tmp_path: Path, bucket: None) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "small.toml").write_text(JOB)
    (trial,) = build_plan(load_job(here / "small.toml")).trials
    commit_all(StageStore(here / "stepwise-store"), trial)
    ran = stepwise("run", "small.toml", "--mirror", URL, cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    again = stepwise("run", "small.toml", "--mirror", URL, cwd=there)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{len(trial.stages)} stages came from {URL}" in again.stdout
    assert "starting Ray" not in again.stdout
    metrics = [{key: m["metrics"] for key, m in manifests(folder).items()} for folder in (here, there)]
    assert metrics[0] == metrics[1]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in written

    missing = stepwise("run", "small.toml", "--mirror", "s3://no-such-bucket", cwd=there)
    assert missing.returncode == 0, missing.stdout + missing.stderr
    assert "the mirror is behind" in missing.stdout
