"""MLflow's page of a store's frontier, and what a person reads from it."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from commands import free_port, start

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DEADLINE_MS = 180_000
Line = tuple[tuple[float, float], ...]
"""Points (removed tokens, exact match)."""


@contextmanager
def served(store: Path) -> Iterator[str]:
    """The page that ``stepwise ui`` prints and serves."""
    with start("ui", "--store", store, "--port", str(free_port()), cwd=store) as server:
        try:
            yield next(found[0] for line in server.stdout if (found := re.search(r"http://\S+#\S+", line)))
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(DEADLINE_MS / 1000)


def lines_on(page: Any) -> set[Line]:
    """What an open page draws of ``frontier/accuracy``, once it does."""
    page.get_by_text("frontier/accuracy").first.wait_for(timeout=DEADLINE_MS)
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(timeout=DEADLINE_MS)
    drawn = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')][0].data.map(line => [[...line.x], [...line.y]])"
    )
    return {tuple(zip(x, y, strict=True)) for x, y in drawn}


def lines_at(url: str) -> set[Line]:
    """The lines of a page: as headless Chromium draws them or, where there is none, as MLflow tells them."""
    return _seen(url) if CHROMIUM and find_spec("playwright") else _told(url)


def _seen(url: str) -> set[Line]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(url, timeout=DEADLINE_MS)
        lines = lines_on(page)
        browser.close()
    return lines


def _told(url: str) -> set[Line]:
    import requests

    api = url.split("#")[0].rstrip("/") + "/api/2.0/mlflow"
    experiment = re.search(r"experiments/(\d+)", url)[1]
    runs = requests.post(f"{api}/runs/search", json={"experiment_ids": [experiment]}, timeout=60).json()["runs"]
    lines = set()
    for run in runs:
        asked = {"run_id": run["info"]["run_id"], "metric_key": "frontier/accuracy"}
        history = requests.get(f"{api}/metrics/get-history", params=asked, timeout=60).json().get("metrics", [])
        lines.add(tuple(sorted((int(metric["step"]), metric["value"]) for metric in history)))
    return lines - {()}
