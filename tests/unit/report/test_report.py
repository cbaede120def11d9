"""What a user sees of a job: the three report files and the terminal's tables."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from builders import commit_stage, metrics_of
from rich.console import Console
from rich.table import Table

import orchestrator
from orchestrator.config import Job, MultiplicationTask, PretrainedModel, Schedule, Stability
from orchestrator.errors import InputError
from orchestrator.method.stage import RemovalPoint, StageMetrics, Verdict
from orchestrator.plan import Plan, PlannedStage, Trial, build_plan
from orchestrator.report import ReportFiles, write_report
from orchestrator.report.headlines import Headline, headlines
from orchestrator.report.html import rendered
from orchestrator.report.html.page import report_html
from orchestrator.report.terminal.chart import frontier_chart, sparkline
from orchestrator.report.terminal.ending import ending
from orchestrator.report.terminal.tables import frontier_table, summary_table
from orchestrator.results.find import find_stage
from orchestrator.results.findings import Findings
from orchestrator.results.forecast import forecast
from orchestrator.results.frontier import FrontierPoint, frontier
from orchestrator.results.intervals import interval, student, wilson
from orchestrator.stability import Block
from orchestrator.store import StageStore, save_job
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import proceed

SCHEDULE = Schedule(tokens_per_stage=4, stage_steps=200, pretrain_steps=300, consolidation_stages=2)
LEARNED = {
    "no_cot": [0.0, 0.0, 0.02, 0.05, 0.1, 0.16, 0.21],
    "explicit_cot": [0.91, 0.93, 0.96, 0.97, 0.98, 0.985, 0.99],
    "stepwise": [0.91, 0.94, 0.88, 0.79, 0.35, 0.81, 0.93],
}
"""Exact match at the end of every stage; a further seed has 0.01 less."""
WIDE = 200
"""Columns of a terminal on which nothing needs to be cut: what is wider than 80 shows."""


def make_plan(**fields: object) -> Plan:
    methods = ("no_cot", "explicit_cot", "stepwise")
    task = MultiplicationTask(digits=(3, 2))
    return build_plan(
        Job.model_validate({"name": "mult-3x2", "methods": methods, "task": task, "schedule": SCHEDULE} | fields)
    )


def metrics(trial: Trial, stage: PlannedStage) -> StageMetrics:
    spec, exact_match = stage.spec, LEARNED[trial.method][stage.index] - 0.01 * trial.seed
    left = spec.total_tokens - spec.removed_to
    return metrics_of(
        stage,
        max(exact_match, 0.0),
        examples=1000,
        generated_tokens=8 + left + (left > 0),
        examples_per_second=200 / (8 + left),
        examples_per_second_batched=3000 / (8 + left),
        after_removal=tuple(
            RemovalPoint(
                step=r.step, removed_tokens=r.removed_tokens, exact_match=max(0.0, 0.7 - 0.06 * r.removed_tokens)
            )
            for r in spec.removals
        ),
        train_seconds=30.0,
        evaluate_seconds=3.0,
    )


def commit(store: StageStore, trial: Trial, stages: Iterable[PlannedStage], verdict: Verdict = "good") -> None:
    for stage in stages:
        commit_stage(store, stage, metrics(trial, stage), verdict, files={"config.json": b"{}"})


@dataclass(frozen=True)
class Finished:
    """A job of three methods and one seed, every stage committed, and its report."""

    plan: Plan
    store: StageStore
    files: ReportFiles

    @property
    def html(self) -> str:
        return self.files.html.read_text("utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    plan, store = make_plan(), StageStore(folder / "store")
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    return Finished(plan, store, write_report(Findings.of(plan, store), folder / "report"))


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


class Page(HTMLParser):
    """A page's text, tags and attributes; fails on a tag that is not closed where it should be."""

    VOID = frozenset({"meta", "br", "circle", "path", "rect", "line", "polygon"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.text.setdefault(self.open[-1], []).append(data)


def html_of(plan: Plan, store: StageStore) -> str:
    return report_html(Findings.of(plan, store))


def lead(html: str) -> str:
    found = re.search(r'<p class="lead">(.*?)</p>', html)
    assert found
    return found[1]


def printed(table: Table) -> str:
    console = Console(width=WIDE, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def ended(findings: Findings) -> str:
    """What a run ends with on a wide terminal."""
    console = Console(width=WIDE, file=io.StringIO(), color_system=None)
    for part in ending(findings):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_csv_has_every_field_of_every_point(finished: Finished) -> None:
    rows = list(csv.DictReader(finished.files.csv.read_text().splitlines()))
    assert list(rows[0]) == [name for name in FrontierPoint.model_fields if name != "settings"]
    assert len(rows) == sum(len(trial.stages) for trial in finished.plan.trials)
    last = rows[-1]
    assert (last["trial"], last["removed_tokens"], float(last["exact_match"])) == ("stepwise-seed0", "10", 0.93)


def test_png_shows_colours_of_all_methods(finished: Finished) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    from orchestrator.labels import COLOURS

    image = imread(finished.files.png)[..., :3]
    for method in finished.plan.job.methods:
        assert (abs(image - to_rgb(COLOURS[method])).max(axis=-1) < 0.01).sum() > 100


def test_sentence_compares_the_methods_at_equal_steps(finished: Finished) -> None:
    assert lead(finished.html) == (
        "Stepwise Internalization, seed 0: 10 of 10 CoT tokens removed, exact match 0.930; "
        "No CoT after as many steps: 0.210; Explicit CoT: 0.990, writing 19 tokens instead of 8."
    )


def test_page_loads_nothing(finished: Finished) -> None:
    html, page = finished.html, Page(finished.html)
    assert not [a for a in page.attributes if a[1] in ("src", "href", "srcset", "data", "xlink:href")]
    assert not re.search(r"url\(|@import|<script|<link", html)


def test_every_stage_can_be_reached_by_keyboard(finished: Finished) -> None:
    named = [value for tag, name, value in Page(finished.html).attributes if (tag, name) == ("g", "aria-label")]
    assert "Stepwise Internalization, seed 0, stage 6: 10 removed, exact match 0.930" in named
    assert len(named) == 7 + 1 + 1


def test_advised_folders_hold_the_models(finished: Finished) -> None:
    html, page = finished.html, Page(finished.html)
    advised = re.findall(r'<td class="code">(stages/[^<]+)</td>', html.split("</section>")[0])
    assert len(advised) == len({p.removed_tokens for p in frontier(finished.plan, finished.store) if p.pareto})
    assert all((finished.store.root / folder / "config.json").is_file() for folder in advised)
    assert any("10 of 10" in cell for cell in page.text["td"])


def test_several_seeds_give_mean_and_range(store: StageStore) -> None:
    plan = make_plan(seeds=(0, 1, 2), methods=("stepwise",))
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    html = html_of(plan, store)
    assert lead(html) == (
        "Stepwise Internalization, 3 seeds: 10 of 10 CoT tokens removed, exact match 0.920 on average (0.910 to 0.930)."
    )
    assert html.count("<li>") == len(("stage end", "95 % interval", "right after a removal", "earlier stage"))


def test_partial_run_says_how_far_it_is(store: StageStore) -> None:
    plan = make_plan(seeds=(0, 1))
    no_cot, _, stepwise = plan.trials[:3]
    commit(store, stepwise, stepwise.stages[:3])
    commit(store, no_cot, no_cot.stages)
    html = html_of(plan, store)
    Page(html)
    assert lead(html) == (
        "Stepwise Internalization, 1 of 2 seeds: 4 of 10 CoT tokens removed so far (3 of 7 stages), "
        "exact match 0.880; No CoT after 1,250 steps: 0.210; Explicit CoT after 300 steps: 0.910, "
        "writing 19 tokens instead of 15."
    )


def test_diverged_last_stage_is_not_hidden(store: StageStore) -> None:
    plan = make_plan(methods=("stepwise",), stability=Stability(restarts=False))
    commit(store, plan.trials[0], plan.trials[0].stages[:2])
    commit(store, plan.trials[0], plan.trials[0].stages[2:3], "diverged")
    html = html_of(plan, store)
    assert "(last stage diverged)" in lead(html)
    [row] = [line for line in ended(Findings.of(plan, store)).splitlines() if "diverged" in line]
    assert row.split()[:4] == ["Stepwise", "0", "0/10", f"{LEARNED['stepwise'][1]:.3f}"]


@pytest.mark.parametrize("beside", [True, False], ids=["beside a baseline", "alone"])
def test_trial_that_gives_up_at_its_first_stage_is_reported(store: StageStore, tmp_path: Path, beside: bool) -> None:
    methods = ("no_cot", "stepwise") if beside else ("stepwise",)
    plan = make_plan(methods=methods, stability=Stability(restarts=False))
    commit(store, plan.trials[-1], plan.trials[-1].stages[:1], "diverged")
    for trial in plan.trials[:-1]:
        commit(store, trial, trial.stages)
    findings = Findings.of(plan, store)
    html = write_report(findings, tmp_path / "r").html.read_text("utf-8")
    Page(html)
    said = ended(findings)
    assert re.search(r"Stepwise +0 .* diverged", said)
    assert ("─ No CoT 0.210" in said) is ("<svg" in html) is beside
    assert ("No stage has passed yet." in said) is not beside
    assert lead(html) == (
        "Stepwise Internalization, seed 0: no stage passed (last stage diverged); "
        "No CoT, seed 0 after 1,250 steps: 0.210."
        if beside
        else "No stage has passed yet."
    )
    assert answered(plan, store)["What went wrong?"].value == "1 trial gave up"


def test_every_verdict_is_counted_by_its_own_name(store: StageStore) -> None:
    plan = make_plan(seeds=(0, 1, 2), methods=("stepwise",), stability=Stability(restarts=False))
    for trial, verdict in zip(plan.trials, ("diverged", "stuck", "diverged"), strict=True):
        commit(store, trial, trial.stages[:2])
        commit(store, trial, trial.stages[2:3], verdict)
    assert "(last stage of 2 diverged, last stage of 1 stuck)" in lead(html_of(plan, store))


def test_search_shows_the_first_configuration_that_has_a_stage(store: StageStore, tmp_path: Path) -> None:
    search = {"space": {"schedule.tokens_per_stage": (2, 4)}}
    plan = make_plan(methods=("stepwise",), search=search, schedule=SCHEDULE.model_copy(update={"pretrain_steps": 0}))
    second = plan.trials[1]
    commit(store, second, second.stages[:1])
    findings = Findings.of(plan, store)
    assert [dict(standing.settings) for standing in findings.ranked][1] == dict(second.settings)
    html = write_report(findings, tmp_path / "r").html.read_text("utf-8")
    Page(html)
    assert lead(html) == (
        "None of 2 configurations is finished yet. "
        "Stepwise Internalization, seed 0: 0 of 10 CoT tokens removed so far (1 of 6 stages), exact match 0.910."
    )
    assert "Δ 4, seed 0, stage 0: 0 removed" in html
    assert "● Stepwise Internalization 0.910" in ended(findings)
    opened = ended(findings).splitlines()
    assert opened[0] == "Did it internalize? Not yet: still training: 0.910 with 0 of 10 CoT tokens removed"
    assert opened[2].startswith("Δ 4, stage by stage:")


def spot_check(stage: PlannedStage, exact_match: float) -> Block:
    loss = {"probe_loss": 1.0, "train_loss": 1.0, "train_loss_max": 2.0, "gradient_norm": 1.0, "gradient_norm_max": 2.0}
    at = {"step": 10, "update_ratio": 0.01, "removed_tokens": stage.spec.removed_to, "non_finite": 0}
    return Block(probe_exact_match=exact_match, **loss, **at)


def commit_restarted(store: StageStore, trial: Trial, at: int, *, checked: bool = True) -> Chain:
    """A trial whose stage ``at`` is stuck once. ``checked``: a spot check came before that."""
    chain = Chain.begin(trial)
    while stage := chain.next:
        if stage.index == at and not chain.failures:
            blocks = (spot_check(stage, 0.12),) if checked else ()
            failed = metrics(trial, stage).model_copy(update={"blocks": blocks})
            chain = proceed(chain, commit_stage(store, stage, failed, "stuck", "flat < all"))
        else:
            chain = proceed(chain, commit_stage(store, stage, metrics(trial, stage)))
    return chain


def test_restart_is_told_everywhere(store: StageStore, tmp_path: Path) -> None:
    plan = make_plan()
    for trial in plan.trials[:2]:
        commit(store, trial, trial.stages)
    commit_restarted(store, plan.trials[2], at=3)
    findings = Findings.of(plan, store)
    files, summary = write_report(findings, tmp_path / "r"), printed(summary_table(findings.trials))
    html = files.html.read_text("utf-8")
    page = Page(html)
    assert "(after 1 restart)" in lead(html)
    assert "Restarts" in page.text["h2"]
    assert {"flat < all", "restart 1 from stage 3: another seed"} <= set(page.text["td"])
    marks = [
        text for text in page.text["title"] if "stage 3 stuck: flat < all; restart 1 from stage 3: another seed" in text
    ]
    assert len(marks) == 1
    assert [row["restarts"] for row in csv.DictReader(io.StringIO(files.csv.read_text()))][-4:] == ["1"] * 4
    assert [line.split()[-2] for line in summary.splitlines() if "good" in line] == ["0", "0", "1"]
    assert max(map(len, summary.splitlines())) <= 80


def test_restart_is_counted_before_its_next_attempt_is_committed(store: StageStore) -> None:
    plan = make_plan(methods=("stepwise",))
    [trial] = plan.trials
    commit(store, trial, trial.stages[:2])
    commit(store, trial, trial.stages[2:3], "stuck")
    html = html_of(plan, store)
    assert "(after 1 restart)" in lead(html)
    assert answered(plan, store)["What went wrong?"].value == "1 restart"


def test_failed_attempt_without_a_spot_check_has_no_cross(store: StageStore) -> None:
    plan = make_plan(methods=("stepwise",))
    commit_restarted(store, plan.trials[0], at=3, checked=False)
    html = html_of(plan, store)
    assert "flat &lt; all" in html
    assert 'class="failed' not in html and "a failed attempt" not in html


def test_plan_follows_a_restarted_trial(store: StageStore) -> None:
    plan = make_plan(methods=("stepwise",))
    commit_restarted(store, plan.trials[0], at=3)
    planned = forecast(plan, store)
    assert all(stage.in_store for stage in planned.trials[0].stages)
    assert planned.steps_left == 0


def test_empty_store_gives_all_files_and_says_so(store: StageStore, tmp_path: Path) -> None:
    plan = make_plan()
    files = write_report(Findings.of(plan, store), tmp_path / "r")
    assert files.csv.read_text().splitlines() == [",".join(n for n in FrontierPoint.model_fields if n != "settings")]
    assert files.png.stat().st_size > 0
    html = files.html.read_text("utf-8")
    Page(html)
    assert lead(html) == "No stage is committed yet."
    assert set((tmp_path / "r").iterdir()) == {files.csv, files.parquet, files.png, files.svg, files.html}
    assert pd.read_parquet(files.parquet).empty


def test_text_of_the_job_is_escaped(store: StageStore) -> None:
    plan = make_plan(model=PretrainedModel(name='a"<script>alert(1)</script>&amp;'))
    html = html_of(plan, store)
    page = Page(html)
    assert "<script" not in html
    assert any("<script>alert(1)</script>&amp;" in cell for cell in page.text["code"])


def test_picture_stays_xml_whatever_its_words_hold() -> None:
    svg = rendered("frontier.svg", paper="#fff", css="", about="a\x1b<b>", legend=(), removal=None, speed=None)
    assert "a\\x1b&lt;b&gt;" in svg


def test_every_trial_has_its_removals(finished: Finished) -> None:
    found = Findings.of(finished.plan, finished.store).after_removal
    assert [r.removed_tokens for r in found["stepwise-seed0"]] == list(range(1, 11))
    assert found["no_cot-seed0"] == ()


def test_tables_fit_a_narrow_terminal(store: StageStore) -> None:
    plan = make_plan(seeds=(0, 1))
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    trials = Findings.of(plan, store).trials
    stepwise = [trial for trial in trials if trial.method == "stepwise"]
    summary, stages = printed(summary_table(trials)), printed(frontier_table(stepwise))
    assert [line.split()[0] for line in summary.splitlines() if "good" in line] == ["No", "Explicit", "Stepwise"] * 2
    assert sum("/10" in line for line in stages.splitlines()) == 14
    assert max(map(len, (summary + stages).splitlines())) <= 80


def test_tables_import_nothing_heavy() -> None:
    heavy = "torch", "ray", "mlflow", "matplotlib"
    code = f"import sys, orchestrator.report.terminal.tables; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def answered(plan: Plan, store: StageStore) -> dict[str, Headline]:
    return {answer.question: answer for answer in headlines(Findings.of(plan, store))}


def test_six_questions_are_answered_first(finished: Finished) -> None:
    found = answered(finished.plan, finished.store)
    model, speed = found["Which model?"], found["How fast?"]
    assert (model.value, speed.value) == ("0.930", "2.25x")
    assert (finished.store.root / model.code / "config.json").is_file()
    assert "8 tokens instead of 19; 1.00x the speed of No CoT" in speed.detail
    assert found["How sure?"].value == "0.912 to 0.944"
    assert found["Did it internalize?"].value == "Not yet"
    assert "still rising: 0.930 with all 10 CoT tokens removed" in found["Did it internalize?"].detail
    assert found["What went wrong?"].value == "1 trial missed the goal"
    assert "sharing saved 33 s (300 steps); nothing lost to failed attempts" in found["What did it cost?"].detail
    shown = finished.html.split("</header>")[0]
    assert all(answer.value in shown for answer in found.values())


def test_model_to_use_is_the_best_that_writes_no_cot_whatever_its_method(store: StageStore, monkeypatch) -> None:
    plan = make_plan()
    monkeypatch.setitem(LEARNED, "no_cot", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    save_job(plan, store)
    model = answered(plan, store)["Which model?"]
    assert (model.value, model.detail) == ("0.950", "exact match with no CoT left: No CoT, seed 0, stage 6")
    asked = find_stage("mult-3x2", store)
    assert (asked.trial.name, store.root / model.code) == ("no_cot-seed0", store.folder(asked.tried.manifest))


def test_model_to_use_so_far_has_the_most_tokens_removed(store: StageStore) -> None:
    plan = make_plan(methods=("explicit_cot", "stepwise"))
    commit(store, plan.trials[1], plan.trials[1].stages[:4])
    save_job(plan, store)
    assert answered(plan, store)["Which model, so far?"].value == f"{LEARNED['stepwise'][3]:.3f}"
    assert find_stage("mult-3x2", store).tried.stage.index == 3


def test_speed_of_a_model_that_writes_its_whole_cot_is_said_in_words(store: StageStore) -> None:
    plan = make_plan(methods=("explicit_cot", "stepwise"))
    commit(store, plan.trials[0], plan.trials[0].stages)
    speed = answered(plan, store)["How fast?"]
    assert (speed.value, speed.detail) == (
        "11.1 examples/s",
        "at batch 1: it writes its whole CoT, 19 tokens an answer",
    )


def test_certainty_of_several_seeds_is_theirs(store: StageStore) -> None:
    plan = make_plan(seeds=(0, 1, 2), methods=("stepwise",))
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    sure = answered(plan, store)["How sure?"]
    assert sure.value == "0.910 to 0.930"
    assert "over 3 seeds: mean 0.920, 95 % interval 0.895 to 0.945" in sure.detail


@pytest.mark.parametrize(
    ("reached", "value", "said"),
    [
        (1, "0.912 to 0.944", "95 % interval of this model, from 1,000 examples. 2 other seeds did not get this far"),
        (2, "0.920 to 0.930", "over 2 seeds (1 more did not get this far): mean 0.925, 95 % interval 0.861 to 0.989"),
    ],
)
def test_certainty_is_of_the_seeds_that_got_as_far(store: StageStore, reached: int, value: str, said: str) -> None:
    plan = make_plan(seeds=(0, 1, 2), methods=("stepwise",))
    for number, trial in enumerate(plan.trials):
        commit(store, trial, trial.stages if number < reached else trial.stages[:3])
    sure = answered(plan, store)["How sure?"]
    assert sure.value == value
    assert sure.detail.startswith(said)
    assert "A mean is over the seeds that got as far." in html_of(plan, store)


def test_cost_counts_what_restarts_threw_away(store: StageStore) -> None:
    plan = make_plan(methods=("stepwise",))
    commit_restarted(store, plan.trials[0], at=3)
    cost = Findings.of(plan, store).cost
    assert cost.total.steps - cost.lost.steps == plan.trials[0].steps
    assert (cost.lost.steps, cost.shared.steps, cost.planned_steps) == (200, 0, 0)
    trouble = answered(plan, store)["What went wrong?"]
    assert (trouble.value, trouble.detail) == (
        "1 trial missed the goal, 1 restart",
        "failed attempts: 1 stuck; the reasons are below",
    )


def test_cost_of_a_partial_run_names_what_is_to_come(store: StageStore) -> None:
    plan = make_plan(methods=("stepwise",))
    commit(store, plan.trials[0], plan.trials[0].stages[:3])
    assert Findings.of(plan, store).cost.planned_steps == sum(s.spec.steps for s in plan.trials[0].stages[3:])


@pytest.mark.parametrize(
    ("share", "examples", "expected"),
    [(0.5, 100, (0.404, 0.596)), (1.0, 1000, (0.996, 1.0)), (0.0, 10, (0.0, 0.278)), (0.9, 0, (0.0, 1.0))],
)
def test_wilson_interval(share: float, examples: int, expected: tuple[float, float]) -> None:
    assert wilson(share, examples) == pytest.approx(expected, abs=5e-4)


def test_student_interval_widens_with_few_seeds() -> None:
    assert student([0.5, 0.6]) == (0.0, 1.0), "12.7 x 0.05 either way, cut to what a share can be"
    assert student([0.5, 0.5, 0.6]) == pytest.approx((0.390, 0.677), abs=1e-3)
    low, high = student([0.5, 0.6] * 20)
    assert (low, high) == pytest.approx((0.534, 0.566), abs=1e-3)


def test_equal_seeds_leave_open_what_their_examples_do() -> None:
    assert interval([1.0, 1.0, 1.0], 1000) == wilson(1.0, 1000)
    assert interval([0.5, 0.6], 1000) == student([0.5, 0.6])


def test_frontier_is_a_data_frame(finished: Finished) -> None:
    save_job(finished.plan, finished.store)
    of_job = orchestrator.load_frontier(finished.store.root / "jobs" / finished.plan.job.name)
    for frame in (of_job, *(orchestrator.load_frontier(f) for f in (finished.files.parquet, finished.files.csv))):
        assert list(frame.columns) == list(of_job.columns)
        assert frame[frame.trial == "stepwise-seed0"].exact_match.tolist() == LEARNED["stepwise"]
        assert frame.pareto.dtype == bool
    with pytest.raises(InputError, match="holds no frontier"):
        orchestrator.load_frontier(finished.store.root)


def test_parquet_has_searched_fields_as_numbers(store: StageStore, tmp_path: Path) -> None:
    search = {"space": {"schedule.smoothing_lambda": (4.0, float("inf")), "schedule.removal_side": ("left", "right")}}
    plan = make_plan(methods=("stepwise",), search=search)
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    frame = pd.read_parquet(write_report(Findings.of(plan, store), tmp_path).parquet)
    assert set(frame["schedule.smoothing_lambda"]) == {4.0, float("inf")}
    assert set(frame["schedule.removal_side"]) == {"left", "right"}
    html = html_of(plan, store)
    Page(html)
    assert html.count("<figure><p>") == 4, "a panel for each configuration"


def test_package_is_light_to_import() -> None:
    code = "import sys, orchestrator; print({'torch', 'ray', 'mlflow', 'pandas', 'pydantic'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_svg_for_a_paper_is_the_same_every_time(finished: Finished, tmp_path: Path) -> None:
    again = write_report(Findings.of(finished.plan, finished.store), tmp_path)
    assert again.svg.read_bytes() == finished.files.svg.read_bytes()
    assert 'href="http' not in again.svg.read_text()


def test_picture_in_characters_has_the_ends_of_all_methods(finished: Finished) -> None:
    picture = frontier_chart(Findings.of(finished.plan, finished.store)).splitlines()
    rows = {line[:3]: line for line in picture}
    assert rows["1.0"].startswith("1.0 ┤┄┄┄") and "┄ Explicit CoT 0.990" in picture
    assert rows["0.2"].startswith("0.2 ┤───") and "─ No CoT 0.210" in picture
    assert sum(line.count("●") for line in picture[:12]) == 4
    assert max(map(len, picture)) <= 80


def test_sparkline_shows_the_last_values() -> None:
    assert sparkline([0.5, 0.0, 0.5, 1.0], 3) == "▁▅█"


def test_page_of_many_seeds_has_their_mean_and_the_middle_of_them(
    store: StageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(seeds=tuple(range(40)), methods=("stepwise",))
    for trial in plan.trials:
        commit(store, trial, trial.stages)
    monkeypatch.setattr("orchestrator.report.html.sections.MOST_ROWS", 100)
    files = write_report(Findings.of(plan, store), tmp_path / "r")
    html = files.html.read_text("utf-8")
    counts = len({point.removed_tokens for point in frontier(plan, store)})
    assert len(re.findall('class="end stepwise"[^>]*><title>', html)) == 2 * counts
    assert "40 seeds: 10 removed, exact match 0.735 on average, nine in ten from 0.560 to 0.910" in html
    assert "more than 30 seeds only the mean is marked" in html and 'class="removal' not in html
    assert html.count("<caption>") == html.count("first 100 of 280, frontier.csv has all</caption>") + 4
    assert "nine in ten seeds" in files.svg.read_text()


def test_ending_of_many_trials_stays_short_and_shows_what_failed(store: StageStore) -> None:
    plan = make_plan(seeds=tuple(range(40)), methods=("no_cot",), stability=Stability(restarts=False))
    for trial in plan.trials[:-1]:
        commit(store, trial, trial.stages[:1])
    commit(store, plan.trials[-1], plan.trials[-1].stages[:1], "diverged")
    lines = ended(Findings.of(plan, store)).splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 80
    assert any(line.split()[2:3] == ["39"] and "diverged" in line for line in lines)
    assert "10 trials more in the report" in lines
