"""Deliveries in a thread: a closed one prints nothing more, however long its last delivery hangs."""

from __future__ import annotations

from threading import Event, enumerate

import pytest

from orchestrator.delivery import Background


class Hanging(Background[None]):
    """Delivers nothing until its event is set, then fails."""

    behind = "the receiver is away"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun, self.ends = Event(), Event()
        super().__init__(None, self.said.append)

    def _deliver(self, closing: bool) -> None:
        self.begun.set()
        self.ends.wait()
        raise OSError("refused")


@pytest.mark.parametrize("interrupted", [False, True])
def test_delivery_that_outlives_its_command_says_nothing_and_ends(
    monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    hanging = Hanging()
    hanging.start()
    hanging.notify()
    assert hanging.begun.wait(60)
    (thread,) = [thread for thread in enumerate() if thread.name == "Hanging"]
    if interrupted:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(thread, "join", _interrupt)
            hanging.close(60)
    else:
        assert not hanging.close(0)
    hanging.ends.set()
    thread.join(60)
    assert not thread.is_alive()
    assert hanging.said == []


def _interrupt(seconds: float) -> None:
    raise KeyboardInterrupt
