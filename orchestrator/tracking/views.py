"""Saved views of an experiment: MLflow opens on the frontier instead of an empty table.

The format is MLflow's own and undocumented: an experiment tag ``mlflow.sharedViewState.<id>``. Look at a screenshot
after every upgrade of MLflow. If the views break, the default page still has ``frontier/accuracy`` first.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from orchestrator.config import Job
from orchestrator.labels import caption
from orchestrator.plan.grid import key_of

SECTION = "frontier"
REMOVED = "frontier/internalized_tokens"
Chart = tuple[tuple[str, ...], str | None]
"""A chart's (y, x): y is one metric or several, and without x the chart goes by the metric's step."""

ACCURACY: Chart = (("frontier/accuracy", "baseline/accuracy"), REMOVED)
SPEED: Chart = (("frontier/examples_per_second",), REMOVED)
MEAN_SPEED: Chart = (("frontier/examples_per_second",), None)
MEAN_SPEEDUP: Chart = (("frontier/speedup",), None)
PROGRESS: Chart = (("stage/exact_match",), None)
RESTARTS: Chart = (("frontier/restarts",), REMOVED)
CARD_HEIGHT = 320
"""A chart's height in pixels. A window of 1280 x 800 shows the first two charts whole, with the list of runs shut."""


def experiment_note(experiment_id: str, job: Job, run_id: str | None = None, outcome: str = "") -> str:
    """Return the experiment's description: the ``outcome``, links, what a stage is, how to do it again.

    A finished job (``run_id``) shows its report and picture too.
    """
    links = f"[frontier]({view_path(experiment_id)}), [mean over seeds]({view_path(experiment_id, 'frontier-mean')})"
    run = f"#/experiments/{experiment_id}/runs/{run_id}"
    again = f"Again: save the artifact job.toml of the run {job.name}, then `stepwise run job.toml`."
    return "\n\n".join(
        [
            *([f"**{outcome}**"] if outcome else []),
            f"Accuracy against removed chain-of-thought tokens: {links}"
            + (f", [report]({run}/artifacts/report.html)." if run_id else "."),
            *([f"![frontier](get-artifact?path=frontier.png&run_uuid={run_id})"] if run_id else []),
            *([says] if (says := " ".join(caption(job))) else []),
            "A point of `frontier/*` is a stage that stands, its step the removed tokens; `baseline/*` is a baseline's "
            "end, drawn as a flat line once it has come there; speeds come when all trials have ended. Runs can be "
            "searched by tags: `stepwise.restarts`, `stepwise.restart.N` (why, and how: LIKE '%stuck%') and "
            "`stepwise.lineage` (the keys of its stages: LIKE '%1f2e3d4c%'). An attempt that failed is a run below its "
            "trial's (`stepwise.level` = 'attempt'), with its loss, its last spot check and why.",
            again if run_id else f"Again, on the same store: `stepwise run {job.name}`.",
        ]
    )


def experiment_views(created_at: int, job: Job) -> dict[str, str]:
    """Return the two saved views, as tags of the experiment: every run, and the mean over seeds.

    MLflow averages runs only where they share their x: seeds share removed tokens but no speed. It also pairs a
    baseline's single value with the wrong end of its line. A mean speed therefore goes by step, which is the removed
    tokens for ``frontier/*``, and no mean accuracy is drawn over speed.
    """
    each = (ACCURACY, (("frontier/accuracy",), "frontier/examples_per_second"), SPEED, PROGRESS, RESTARTS)
    mean = (ACCURACY, MEAN_SPEED, PROGRESS, RESTARTS)
    if "no_cot" in job.methods:
        each = (ACCURACY, (("frontier/accuracy",), "frontier/speedup"), SPEED, PROGRESS, RESTARTS)
        mean = (ACCURACY, MEAN_SPEEDUP, MEAN_SPEED, PROGRESS, RESTARTS)
    searched = [key_of(field) for field in (job.search.space if job.search else ())]
    keys = dict.fromkeys(("method", "tokens_per_stage", "smoothing_lambda", *searched))
    grouped = _state(
        mean,
        group_by={
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": key} for key in keys],
        },
    )
    return {
        "mlflow.sharedViewState.frontier": _view("Frontier", _state(each, group_by=None), created_at),
        "mlflow.sharedViewState.frontier-mean": _view("Frontier: mean over seeds", grouped, created_at),
    }


def view_path(experiment_id: str, view: str = "frontier") -> str:
    """Return the page of a saved view, below the server's address.

    Without ``workflowType`` a new browser opens a page about traces. A filter in the URL would keep MLflow from
    applying the view.
    """
    query = "workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey="
    return f"#/experiments/{experiment_id}/runs?{query}{view}"


def _view(name: str, state: dict[str, Any], created_at: int) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": created_at, "state": f"deflate;{packed}"})


def _state(charts: tuple[Chart, ...], group_by: dict[str, Any] | None) -> dict[str, Any]:
    section = {"uuid": SECTION, "name": "Frontier", "display": True, "columns": 2, "cardHeight": CARD_HEIGHT}
    return {
        "searchFilter": "tags.`stepwise.level` = 'trial'",
        "orderByKey": "metrics.`score/auc`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "runsHiddenMode": "SHOW_ALL",
        "runListHidden": True,
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "compareRunSections": [{**section, "isReordered": True, "deleted": False, "isGenerated": False}],
        "compareRunCharts": [_chart(number, y, x) for number, (y, x) in enumerate(charts)],
        "groupBy": group_by,
    }


def _chart(number: int, y: tuple[str, ...], x: str | None) -> dict[str, Any]:
    axis = {"xAxisKey": "metric", "selectedXAxisMetricKey": x} if x else {"xAxisKey": "step"}
    return {
        **axis,
        "uuid": f"{SECTION}-{number}",
        "type": "LINE",
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "metricKey": y[0],
        "selectedMetricKeys": list(y),
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "displayPoints": True,
    }
