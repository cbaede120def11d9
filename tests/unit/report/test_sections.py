"""The report's later parts: what a searched field does, where the thought went, and names that are no job's."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from builders import commit_stage, metrics_of

from orchestrator.config import Job, template
from orchestrator.method.stage import Verdict
from orchestrator.plan import Plan, PlannedStage, build_plan
from orchestrator.report.html.page import report_html
from orchestrator.report.html.probing import probe_folder, probe_name, probed_stages
from orchestrator.results.effects import effects
from orchestrator.results.findings import Findings
from orchestrator.store import StageStore, save_job

DELTA, LAMBDA = "schedule.tokens_per_stage", "schedule.smoothing_lambda"


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


def make_plan(**fields: object) -> Plan:
    schedule = {"stage_steps": 50, "pretrain_steps": 30, "consolidation_stages": 1}
    job = {"name": "searched", "methods": ["stepwise"], "task": {"digits": [2, 2]}, "schedule": schedule}
    return build_plan(Job.model_validate(job | fields))


def commit(
    store: StageStore, stages: Sequence[PlannedStage], exact_match: Callable[[int], float], verdict: Verdict = "good"
) -> None:
    """``exact_match``: by removed tokens. A tenth of an example is decoded less a second for every token left."""
    for stage in stages:
        left = stage.spec.total_tokens - stage.spec.removed_to
        speed = {"generated_tokens": 7.0 + left, "examples_per_second": 100 / (7 + left)}
        commit_stage(store, stage, metrics_of(stage, exact_match(stage.spec.removed_to), **speed), verdict)


def test_effect_of_a_field_is_over_the_trials_that_have_ended(store: StageStore) -> None:
    plan = make_plan(seeds=[0, 1], search={"space": {DELTA: [2, 4, 8]}})
    ends = {2: 0.75, 4: 0.5}
    for trial in plan.trials:
        end = ends.get(dict(trial.settings)[DELTA])
        commit(store, trial.stages if end else trial.stages[:1], lambda removed, end=end: end if removed else 0.9)
    found = effects(Findings.of(plan, store))
    assert [(e.field, e.value, e.shares) for e in found] == [(DELTA, 2, (0.75, 0.75)), (DELTA, 4, (0.5, 0.5))]
    page = report_html(Findings.of(plan, store))
    assert re.search(
        r"tokens_per_stage</th><td[^>]*>2</td><td[^>]*>2</td><td[^>]*>0\.750</td><td[^>]*>0\.657–0\.825<", page
    )


def test_tables_that_grow_with_a_search_end_at_their_most_rows(
    store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(search={"space": {DELTA: [2, 4, 8]}}, stability={"restarts": False})
    for trial in plan.trials:
        commit(store, trial.stages[:1], lambda removed: 0.9)
        commit(store, trial.stages[1:2], lambda removed: 0.0, "stuck")
    monkeypatch.setattr("orchestrator.report.html.sections.MOST_ROWS", 2)
    page = report_html(Findings.of(plan, store))
    assert page.count("; the first 2 of 3</caption>") == len(("ranking", "restarts", "configuration"))
    assert page.count("3 trials gave up") == 1


def test_field_with_one_value_so_far_has_no_effect_to_show(store: StageStore) -> None:
    plan = make_plan(search={"space": {DELTA: [2, 4]}})
    commit(store, plan.trials[0].stages, lambda removed: 0.5)
    assert effects(Findings.of(plan, store)) == ()
    assert "What does each field do?" not in report_html(Findings.of(plan, store))


def test_right_panel_joins_what_is_worth_having_for_its_speed(store: StageStore) -> None:
    plan = make_plan(schedule={"stage_steps": 50, "pretrain_steps": 30, "tokens_per_stage": 2})
    by_removed = {0: 0.9, 2: 0.8, 4: 0.2, 6: 0.3, 8: 0.7}
    commit(store, plan.trials[0].stages, by_removed.__getitem__)
    [group] = Findings.of(plan, store).groups
    assert [(point.removed_tokens, point.exact_match) for point in group.front] == [(8, 0.7), (2, 0.8), (0, 0.9)]


def write_probed(store: StageStore, plan: Plan, stage: PlannedStage, skill: float) -> None:
    """Two results, two layers, positions a0 and E; ``skill`` is that of the first result after the last layer at E."""
    rows = ["model,target,family,layer,position,symbol,score,constant,skill"]
    for model in ("trained", "untrained"):
        for target, family, best in (("a·b0, digit 0", "partial product", skill), ("ĉ0", "carry", 0.5)):
            for layer in (0, 1):
                for position, symbol in enumerate(("a0", "E")):
                    there = best if (model, layer, symbol) == ("trained", 1, "E") else -0.1
                    rows.append(f'{model},"{target}",{family},{layer},{position},{symbol},0,0,{there}')
    folder = probe_folder(store.root, plan.job.name)
    folder.mkdir(parents=True, exist_ok=True)
    name = probe_name(plan.trials[0].name, stage.index, stage.key)
    (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", "utf-8")


def test_probed_stages_are_shown_along_the_chain_with_the_best_site(store: StageStore) -> None:
    plan = make_plan()
    stages = plan.trials[0].stages
    commit(store, stages, lambda removed: 0.9)
    assert "Where did the thought go?" not in report_html(Findings.of(plan, store))
    for stage, skill in ((stages[0], 0.97), (stages[-1], 0.64)):
        write_probed(store, plan, stage, skill)
    findings = Findings.of(plan, store)
    assert [probed.stage for probed in probed_stages(findings)] == [0, stages[-1].index]
    page = report_html(findings)
    assert re.search(r"a·b0, digit 0</th><td[^>]*>0\.97</td><td[^>]*>0\.64</td><td[^>]*>0\.00<", page)
    assert f"stage {stages[-1].index}, 8 of 8 removed: read best after layer 1 at E, 0.64" in page


def test_what_was_read_off_a_stage_made_anew_is_not_shown(store: StageStore) -> None:
    plan, before = make_plan(), make_plan(seeds=[7])
    commit(store, plan.trials[0].stages, lambda removed: 0.9)
    write_probed(store, plan, before.trials[0].stages[0], 0.97)
    assert probed_stages(Findings.of(plan, store)) == ()


@pytest.mark.parametrize("words", ["report serched", "plan serched", "compare searched serched", "track serched"])
def test_name_that_is_no_job_is_answered_with_the_one_meant(stepwise: Callable, store: StageStore, words: str) -> None:
    plan = make_plan()
    save_job(plan, store)
    commit(store, plan.trials[0].stages, lambda removed: 0.9)
    finished = stepwise(*words.split(), "--store", store.root)
    assert finished.code == 2
    assert finished.err.startswith("error[STO002] serched: is no job of")
    assert 'did you mean "searched"?' in finished.err


def test_overrides_of_a_saved_job_are_refused_by_name(stepwise: Callable, store: StageStore) -> None:
    save_job(make_plan(), store)
    finished = stepwise("plan", "searched", "seeds=[1]", "--store", store.root)
    assert (finished.code, finished.err[:23]) == (2, "error[RUN007] searched:")


def test_template_shows_every_type_of_a_table_and_each_makes_a_job() -> None:
    text = template()
    types = re.findall(r"^# \[(task|model)\]\n((?:# .+\n)+)", text, re.MULTILINE)
    assert [re.findall('type = "(.+)"', lines) for _, lines in types] == [["text"], ["gsm8k"], ["pretrained"]]
    document = tomllib.loads(text)
    for table, lines in types:
        other = tomllib.loads(lines.replace("# ", ""))
        Job.model_validate(document | {table: other})
