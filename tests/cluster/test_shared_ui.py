"""`stepwise ui --shared` with MLflow's real server: nobody without the password, no unknown host name."""

from __future__ import annotations

import base64
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from commands import DEADLINE_SECONDS, free_port, start

from orchestrator.config import Job, MultiplicationTask, Schedule
from orchestrator.store import StageStore, plan_for, save_job


def answer(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:  # noqa: S310
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_shared_server_asks_for_the_password_in_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flask_wtf", reason="the password app needs mlflow[auth]: pip install '.[server]'")
    monkeypatch.setenv("HOME", str(tmp_path))
    store = StageStore(tmp_path / "stepwise-store")
    store.stages.mkdir(parents=True)
    job = Job(name="small", task=MultiplicationTask(digits=(1, 2)), schedule=Schedule(tokens_per_stage=3))
    save_job(plan_for(job, store, 6), store)
    port = free_port()
    server = start("ui", "--shared", "--port", str(port), "--name", "ml.example.org", cwd=tmp_path)
    try:
        said = ""
        for line in server.stdout:
            said += line
            if "viewStateShareKey" in line:
                break
        (password,) = tmp_path.glob(".config/stepwise/mlflow-*/password")
        assert password.stat().st_mode & 0o777 == 0o600
        assert password.read_text() not in said
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
        basic = "Basic " + base64.b64encode(f"admin:{password.read_text()}".encode()).decode()
        assert answer(url) == 401
        assert answer(url, Authorization=basic) == 200
        assert answer(url, Authorization=basic, Host="ml.example.org") == 200
        assert answer(url, Authorization=basic, Host="evil.example.org") == 403
    finally:
        os.kill(server.pid, signal.SIGTERM)
        server.wait(DEADLINE_SECONDS)
        server.stdout.close()
    written = b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    assert password.read_bytes() not in written


def test_other_machines_are_let_in_only_with_a_password(tmp_path: Path) -> None:
    (tmp_path / "stepwise-store/stages").mkdir(parents=True)
    refused = start("ui", "--host", "0.0.0.0", cwd=tmp_path)  # noqa: S104
    assert "only with --shared" in refused.communicate(timeout=DEADLINE_SECONDS)[0]
    assert refused.returncode == 2
