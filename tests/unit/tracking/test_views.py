"""The pages that MLflow opens on, as they are saved with an experiment."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from orchestrator.config import Job
from orchestrator.tracking import frontier_url
from orchestrator.tracking.views import experiment_note, experiment_views


def make_job(**fields: Any) -> Job:
    return Job.model_validate({"name": "seen", "task": {"digits": [2, 2]}, "methods": ["stepwise"]} | fields)


def view(job: Job, name: str) -> dict[str, Any]:
    packed = json.loads(experiment_views(0, job)[f"mlflow.sharedViewState.{name}"])["state"]
    return json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;"))))


@pytest.mark.parametrize(
    ("methods", "speed"),
    [(["no_cot", "stepwise"], "frontier/speedup"), (["stepwise"], "frontier/examples_per_second")],
)
def test_second_chart_is_accuracy_against_a_speed_that_the_job_has(methods: list[str], speed: str) -> None:
    charts = view(make_job(methods=methods), "frontier")["compareRunCharts"]
    axes = [(chart["metricKey"], chart["selectedXAxisMetricKey"]) for chart in charts[:2]]
    assert axes == [("frontier/accuracy", "frontier/internalized_tokens"), ("frontier/accuracy", speed)]


@pytest.mark.parametrize(
    ("methods", "speeds"),
    [
        (["no_cot", "stepwise"], ["frontier/speedup", "frontier/examples_per_second"]),
        (["stepwise"], ["frontier/examples_per_second"]),
    ],
)
def test_means_of_accuracy_and_restarts_go_by_removed_tokens_those_of_speeds_by_step(
    methods: list[str], speeds: list[str]
) -> None:
    charts = view(make_job(methods=methods), "frontier-mean")["compareRunCharts"]
    axes = [(chart["metricKey"], chart.get("selectedXAxisMetricKey")) for chart in charts]
    removed = "frontier/internalized_tokens"
    by_step = [(name, None) for name in [*speeds, "stage/exact_match"]]
    assert axes == [("frontier/accuracy", removed), *by_step, ("frontier/restarts", removed)]


def test_seeds_are_grouped_by_every_searched_field() -> None:
    search = {"space": {"training.learning_rate": [1e-3, 1e-4], "schedule.tokens_per_stage": [1, 2]}}
    groups = view(make_job(search=search), "frontier-mean")["groupBy"]["groupByKeys"]
    names = [group["groupByData"] for group in groups]
    assert names == ["method", "tokens_per_stage", "smoothing_lambda", "learning_rate"]


@pytest.mark.parametrize(("seeds", "name"), [([0], "frontier"), ([0, 1], "frontier-mean")])
def test_several_seeds_open_on_their_mean(seeds: list[int], name: str) -> None:
    page = frontier_url("http://127.0.0.1:5000/", "7", make_job(seeds=seeds))
    assert page.startswith("http://127.0.0.1:5000/#/experiments/7/runs?")
    assert page.endswith(f"viewStateShareKey={name}")


def test_note_speaks_of_removal_only_where_something_is_removed_and_as_it_is() -> None:
    baselines = experiment_note("1", make_job(methods=["no_cot"]))
    assert "removed one by one" not in baselines and "offsets" not in baselines
    searched = make_job(search={"space": {"schedule.type": ["linear", "adaptive"]}})
    assert "removed one by one" not in experiment_note("1", searched)
    assert "Inside a stage tokens are removed one by one, evenly." in experiment_note("1", make_job())
