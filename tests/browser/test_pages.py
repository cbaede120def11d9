"""The report and the MLflow page in a real browser, on a job that was committed without training.

Not part of `pytest`: MLflow's server takes a while. `pip install playwright`, a Chromium, then
`pytest tests/browser`; with STEPWISE_SCREENSHOTS=DIR it leaves pictures to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builders import commit_stage, metrics_of
from pages import CHROMIUM, DEADLINE_MS, lines_on, served

from orchestrator.config import Job
from orchestrator.method.stage import RemovalPoint
from orchestrator.plan import Plan, Trial, build_plan
from orchestrator.report import ReportFiles, write_report
from orchestrator.results.findings import Findings
from orchestrator.store import StageStore, save_job
from orchestrator.tracking import Tracker
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import proceed

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.timeout(30 * 60),
]

LEARNED = {"no_cot": 0.11, "explicit_cot": 0.98, "stepwise": 0.83}


@dataclass(frozen=True)
class Finished:
    """A job with two seeds and one restart, and its report."""

    plan: Plan
    store: StageStore
    files: ReportFiles

    @property
    def findings(self) -> Findings:
        return Findings.of(self.plan, self.store)


def commit(store: StageStore, trial: Trial) -> None:
    """Every stage of a trial; of seed 1 the third is stuck once."""
    chain = Chain.begin(trial)
    while stage := chain.next:
        spec = stage.spec
        fails = trial.method == "stepwise" and (trial.seed, stage.index) == (1, 2) and not chain.failures
        exact_match = LEARNED[trial.method] - spec.removed_to / 100 - trial.seed / 1000 + stage.index / 500
        removed = tuple(
            RemovalPoint(step=r.step, removed_tokens=r.removed_tokens, exact_match=0.4) for r in spec.removals
        )
        metrics = metrics_of(
            stage,
            exact_match,
            examples=1000,
            generated_tokens=16.0 - spec.removed_to,
            examples_per_second=200 / (16 - spec.removed_to),
            after_removal=removed,
            train_seconds=30.0,
            evaluate_seconds=3.0,
        )
        verdict, reason = ("stuck", "flat") if fails else ("good", "")
        chain = proceed(chain, commit_stage(store, stage, metrics, verdict, reason, {"config.json": b"{}"}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    store = StageStore(tmp_path_factory.mktemp("browser") / "store")
    schedule = {"tokens_per_stage": 2, "stage_steps": 50, "pretrain_steps": 50, "consolidation_stages": 2}
    methods = ("no_cot", "explicit_cot", "stepwise")
    document = {"name": "seen", "methods": methods, "seeds": (0, 1), "task": {"digits": (2, 2)}, "schedule": schedule}
    plan = build_plan(Job.model_validate(document))
    save_job(plan, store)
    for trial in plan.trials:
        commit(store, trial)
    return Finished(plan, store, write_report(Findings.of(plan, store), store.root / "jobs/seen/report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser: Any, url: str, own: str, **options: Any) -> tuple[Any, list[str]]:
    """A page, and every request it makes to anything but its own address."""
    outside: list[str] = []
    page = browser.new_page(**options)
    page.on("request", lambda r: None if r.url.startswith((own, "data:", "blob:")) else outside.append(r.url))
    page.goto(url, timeout=DEADLINE_MS)
    return page, outside


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("STEPWISE_SCREENSHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(page.screenshot())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1200, 800), (390, 844)])
def test_report_answers_before_the_second_scroll_and_loads_nothing(
    finished: Finished, browser: Any, scheme: str, width: int, height: int
) -> None:
    url = finished.files.html.as_uri()
    page, outside = opened(browser, url, url, viewport={"width": width, "height": height}, color_scheme=scheme)
    picture(page, f"report-{scheme}-{width}")
    shown = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd strong").all_inner_texts(), strict=True))
    best = max(finished.findings.points, key=lambda point: (point.removed_tokens, point.exact_match))
    assert shown["Which model?"] == f"{best.exact_match:.3f}"
    ends = [trial.last.exact_match for trial in finished.findings.trials if trial.method == best.method]
    assert shown["How sure?"] == f"{min(ends):.3f} to {max(ends):.3f}"
    assert shown["What went wrong?"] == "2 trials missed the goal, 1 restart"
    assert shown["Did it internalize?"] == "No"
    about_model = ["Which model?", "How fast?", "How sure?"]
    assert list(shown) == ["Did it internalize?", *about_model, "What went wrong?", "What did it cost?"]
    last = page.locator(".answers > div").last.bounding_box()
    assert last["y"] + last["height"] < 2 * height
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "scrolls sideways"
    assert outside == []


def test_table_of_models_is_the_pareto_set_and_names_folders_that_exist(finished: Finished, browser: Any) -> None:
    page, _ = opened(browser, finished.files.html.as_uri(), "file:")
    rows = page.locator("section", has_text="Which model should I use?").locator("tbody tr")
    cells = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    pareto = {(p.removed_tokens, f"{p.exact_match:.3f}") for p in finished.findings.points if p.pareto}
    assert {(int(row[4].split(" ")[0]), row[2]) for row in cells} == pareto
    assert all((finished.store.root / row[-1] / "config.json").is_file() for row in cells)


def test_every_stage_of_the_picture_can_be_reached_and_read_with_the_keyboard(finished: Finished, browser: Any) -> None:
    page, _ = opened(browser, finished.files.html.as_uri(), "file:")
    read: list[str] = []
    for _ in finished.findings.points:
        page.keyboard.press("Tab")
        label = page.evaluate("document.activeElement.getAttribute('aria-label')")
        if not label or "exact match" not in label:
            break
        assert page.locator(":focus .tip").is_visible()
        read.append(label)
    trials = [trial for group in finished.findings.groups for trial in group.trials]
    assert len(read) == sum(len(trial.curve) + len(trial.earlier) for trial in trials)


def test_report_is_whole_in_a_sandboxed_frame_as_mlflow_shows_artifacts(finished: Finished, browser: Any) -> None:
    page, outside = opened(browser, "about:blank", "about:")
    page.evaluate(
        """html => {
            const frame = document.createElement("iframe");
            frame.setAttribute("sandbox", "allow-scripts");
            frame.src = URL.createObjectURL(new Blob([html], {type: "text/html"}));
            document.body.append(frame);
        }""",
        finished.files.html.read_text("utf-8"),
    )
    framed = page.frame_locator("iframe")
    best = max(finished.findings.points, key=lambda point: (point.removed_tokens, point.exact_match))
    assert framed.locator("dd strong").nth(1).inner_text() == f"{best.exact_match:.3f}"
    assert framed.locator("svg.frontier").first.bounding_box()["height"] > 200
    picture(page, "report-framed")
    assert outside == []


def test_print_unfolds_every_table(finished: Finished, browser: Any) -> None:
    page, _ = opened(browser, finished.files.html.as_uri(), "file:")
    page.emulate_media(media="print")
    tables = page.locator("details table").all()
    assert tables and all(table.is_visible() for table in tables)


@pytest.fixture(scope="module")
def mlflow_page(finished: Finished) -> Iterator[str]:
    """The page that `stepwise ui` prints, served by it."""
    tracker = Tracker(finished.plan, finished.store)
    tracker.sync()
    tracker.finish(finished.files.html.parent)
    with served(finished.store.root) as page:
        yield page


def test_page_that_ui_prints_shows_its_charts(browser: Any, mlflow_page: str) -> None:
    base = mlflow_page.split("#")[0]
    assert mlflow_page.endswith("frontier-mean"), "two seeds"
    page, outside = opened(browser, mlflow_page, base, viewport={"width": 1400, "height": 1000})
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(timeout=DEADLINE_MS)
    lines = "[...document.querySelectorAll('.js-plotly-plot')].map(chart => (chart.data || []).length)"
    a_line_a_method = f"Math.max(0, ...{lines}) >= {len(LEARNED)}"
    page.wait_for_function(a_line_a_method, timeout=DEADLINE_MS)
    picture(page, "mlflow-mean")
    assert outside == []


def test_mlflow_opens_on_the_frontier(finished: Finished, browser: Any, mlflow_page: str) -> None:
    base = mlflow_page.split("#")[0]
    every_run = mlflow_page.removesuffix("-mean")
    page, outside = opened(browser, every_run, base, viewport={"width": 1400, "height": 1000})
    lines = lines_on(page)
    picture(page, "mlflow")
    for group in finished.findings.groups:
        for trial in group.trials:
            total = trial.last.total_tokens
            flat = tuple((removed, trial.last.exact_match) for removed in (0, total))
            curve = tuple((point.removed_tokens, point.exact_match) for point in trial.curve)
            assert (curve if trial.method == "stepwise" else flat) in lines, trial.last.trial
    assert outside == []


def test_mlflow_shows_an_attempt_thrown_away_below_its_trial(
    finished: Finished, browser: Any, mlflow_page: str
) -> None:
    from mlflow import MlflowClient

    base, experiment = mlflow_page.split("#")[0], mlflow_page.split("experiments/")[1].split("/")[0]
    client = MlflowClient(f"sqlite:///{finished.store.root / 'mlflow.db'}")
    [trial] = client.search_runs([experiment], "attributes.run_name = 'stepwise-seed1'")
    url = f"{base}#/experiments/{experiment}/runs/{trial.info.run_id}?workflowType=machine_learning"
    page, outside = opened(browser, url, base, viewport={"width": 1400, "height": 1600})
    below = page.get_by_role("link", name="stepwise-seed1-stage2-attempt0")
    below.first.wait_for(timeout=DEADLINE_MS)
    picture(page, "mlflow-trial")
    below.first.click()
    page.get_by_text("stage 2 stuck: flat").first.wait_for(timeout=DEADLINE_MS)
    picture(page, "mlflow-attempt")
    assert outside == []
