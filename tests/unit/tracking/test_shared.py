"""The shared MLflow server: the address that is printed is one that it answers to."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.tracking.shared import shared_server


@pytest.mark.parametrize(
    ("host", "names", "address"),
    [
        ("0.0.0.0", ["ml.example.org", "other"], "ml.example.org"),  # noqa: S104
        ("0.0.0.0", [], "127.0.0.1"),  # noqa: S104
        ("10.0.0.5", [], "10.0.0.5"),
        ("127.0.0.1", [], "127.0.0.1"),
    ],
)
def test_address_is_a_host_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, names: list[str], address: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("orchestrator.tracking.shared.find_spec", lambda name: name)
    server = shared_server(tmp_path / "store", host, 5000, names)
    allowed = server.command[server.command.index("--allowed-hosts") + 1].split(",")
    assert server.address == address
    assert {address, f"{address}:5000", "localhost:5000", *names} <= set(allowed)
    assert "0.0.0.0:5000" not in allowed
    assert server.command[server.command.index("--host") + 1] == host
