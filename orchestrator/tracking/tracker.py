"""Brings MLflow into line with the store. Every call can be repeated; nothing is recorded twice."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.config import Job, job_toml
from orchestrator.environment import PROXIES, set_here
from orchestrator.errors import Problem, StepwiseError, first_line
from orchestrator.method.stage import LossPoint
from orchestrator.plan import Plan
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint, points_of
from orchestrator.shown import command
from orchestrator.store import Manifest, StageStore, inside, pruned_trials
from orchestrator.tracking.models import Models, registered_name
from orchestrator.tracking.own import alone, settle
from orchestrator.tracking.projection import OUTCOME, job_record, trial_records
from orchestrator.tracking.records import RunRecord, Value
from orchestrator.tracking.server import artifact_folder, default_uri, frontier_url
from orchestrator.tracking.variables import honour
from orchestrator.tracking.views import experiment_note, experiment_views
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import replay_all

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROWS_PER_CALL = 100
"""The most rows of one call. With more, MLflow 3.17 does not recognise metrics that its models already have."""
REPORT_FILES = (".csv", ".html", ".parquet", ".png", ".svg")
LONGEST_CAUSE = 300
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
CHECKED = "stepwise.checked"
OF_MODELS = ("frontier/accuracy", "frontier/generated_tokens", "frontier/restarts")
"""The metrics of a run that its logged models have too."""
IDENTIFYING = (
    "stage/exact_match",
    "stage/removed_tokens",
    "frontier/accuracy",
    "frontier/examples_per_second",
    "frontier/speedup",
    "score/auc",
    "search/objective",
    "cost/seconds",
    "cost/steps_saved_by_sharing",
)
"""The metrics by which a run is compared with a record. They differ when a stage was made anew, when the speed of No
CoT was measured again, and when a job went on. A failed attempt has only ``cost/seconds``, at the time of its
commit."""


def experiment_name(job: Job) -> str:
    """Return the name of a job's experiment."""
    return job.tracking.experiment or f"stepwise/{job.name}"


@dataclass
class _Run:
    """A run as far as this process knows it."""

    id: str
    status: str
    tags: dict[str, str]
    sent: set[Value] = field(default_factory=set)
    """The values that this process has sent."""
    described: bool = False
    """Whether this process has attached the resolved job, which the runs of trials and jobs have."""


class Tracker:
    """One job in MLflow. It is not thread-safe, and every method may raise ``StepwiseError``."""

    def __init__(self, plan: Plan, store: StageStore, known: Iterable[Chain] = ()) -> None:
        """Start from the chains that were replayed before, if they are ``known``."""
        self.plan = plan
        self.store = store
        self._chains = tuple(known)
        self._own = plan.job.tracking.uri is None
        self.uri = plan.job.tracking.uri or default_uri(store.root)
        self._experiment: str | None = None
        self._runs: dict[str, _Run] = {}
        self._losses: dict[str, Sequence[LossPoint]] = {}

    def sync(self) -> None:
        """Record every stage committed so far, and the status of every trial."""
        records = self._records(self._look())
        with self._mlflow():
            for record in records:
                self._send(record)
                self._set_status(record, record.status)
                for attempt in record.attempts:
                    below = replace(attempt, tags=attempt.tags | {PARENT: self._run(record).id})
                    self._send(below)
                    self._set_status(below, below.status)
            jobs = {trial.name: trial.job for trial in self.plan.trials}
            for record in records:  # after the numbers: a broken artifact store must not hold them up
                self._describe(record, jobs[record.name])

    def finish(self, report: Path) -> None:
        """Record the job as a whole: its envelope and the files of its report."""
        findings = Findings.of(self.plan, self.store, self._chains)
        if not findings.points:
            return
        trials = self._records(findings.chains)
        record = job_record(findings, trials)
        with self._mlflow():
            self._send(record)
            self._describe(record, self.plan.job)
            run = self._run(record).id
            self._client.log_text(run, job_toml(self.plan.job), "job.toml")
            for path in sorted(p for p in report.iterdir() if p.suffix in REPORT_FILES):
                self._client.log_artifact(run, str(path))
            experiment = self._known_experiment()
            self._client.set_experiment_tag(
                experiment, NOTE, experiment_note(experiment, self.plan.job, run, record.tags.get(OUTCOME, ""))
            )
            runs = {trial.name: self._run(trial).id for trial in trials}
            self._models.crown(registered_name(self.plan.job.name), list(findings.points), runs)
            self._set_status(record, record.status)

    def end(self) -> None:
        """Mark the trials that stopped before their last stage as killed. The next ``sync`` revives them."""
        records = self._records(self._look())
        with self._mlflow():
            for record in records:
                if record.status == "RUNNING":
                    self._set_status(record, "KILLED")

    def experiment_id(self) -> str:
        """Return MLflow's id of the job's experiment, which is made if it does not exist."""
        with self._mlflow():
            return self._known_experiment()

    def check_writable(self) -> None:
        """Write a tag into the job's experiment and delete it. The experiment is made or restored as for a run."""
        with self._mlflow():
            experiment = self._known_experiment()
            self._client.set_experiment_tag(experiment, CHECKED, "yes")
            self._client.delete_experiment_tag(experiment, CHECKED)

    def page(self) -> str | None:
        """Return the page with the job's frontier, if a server has its records. Makes no call."""
        served = self.uri.startswith(("http://", "https://"))
        return frontier_url(self.uri, self._experiment, self.plan.job) if served and self._experiment else None

    def _look(self) -> Sequence[Chain]:
        """Return the chains with what was committed since the last look."""
        self._chains = replay_all(self.plan, self.store, self._chains)
        return self._chains

    def _records(self, chains: Sequence[Chain]) -> list[RunRecord]:
        points = points_of(chains)
        for point in points:
            if point.stage_key not in self._losses and (manifest := self.store.read(point.stage_key)):
                self._losses[point.stage_key] = _losses(manifest, point)
        return trial_records(self.plan, chains, points, self._losses, pruned_trials(self.plan, self.store.root))

    @contextmanager
    def _mlflow(self) -> Iterator[None]:
        """Raise any failure as a ``StepwiseError``. Forget what is known of the server: a run may have been deleted."""
        try:
            yield
        except Exception as error:
            self._experiment = None
            self._runs.clear()
            self.__dict__.pop("_models", None)
            again = command("track", self.plan.job.name, "--store", self.store.root)
            fix = f"`{again}` once it is well again"
            through = "" if self._own else set_here(*PROXIES, "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME")
            raise StepwiseError(Problem("MLF001", self.uri, _cause(error) + through, fix)) from error

    @cached_property
    def _client(self) -> MlflowClient:
        honour(server=not self._own)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is raised, and said by us
        if not self._own:
            return MlflowClient(self.uri, self.uri)
        with alone(self.store.root):
            client = MlflowClient(self.uri, self.uri, self.uri)
            settle(self.store.root)
            return client

    @cached_property
    def _models(self) -> Models:
        return Models(self._client, self._known_experiment(), self.store)

    def _known_experiment(self) -> str:
        if self._experiment is None:
            client = self._client
            with alone(self.store.root) if self._own else nullcontext():
                self._experiment = self._make_experiment(client)
        return self._experiment

    def _make_experiment(self, client: MlflowClient) -> str:
        name = experiment_name(self.plan.job)
        found = client.get_experiment_by_name(name)
        experiment = found or client.get_experiment(client.create_experiment(name, self._artifact_location()))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        tags = experiment_views(experiment.creation_time or 0, self.plan.job)
        if NOTE not in experiment.tags:
            tags[NOTE] = experiment_note(experiment.experiment_id, self.plan.job)
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                client.set_experiment_tag(experiment.experiment_id, key, value)
        return experiment.experiment_id

    def _artifact_location(self) -> str | None:
        """Return the folder for artifacts: MLflow would take the current directory. A server has its own, so None."""
        if self.uri.startswith(("http://", "https://")):
            return None
        return (artifact_folder(self.store.root) / self.plan.job.name).as_uri()

    def _run(self, record: RunRecord) -> _Run:
        if record.uid in self._runs and not self._runs[record.uid].sent <= set(record.values):
            del self._runs[record.uid]  # the trial went back over a stage, whose points the run still shows
        if record.uid not in self._runs:
            run = self._find(record) or self._create(record)
            if self._own:  # a database that somebody else wrote
                inside(self.store.root, Path(unquote(urlsplit(run.info.artifact_uri).path)))
            self._add_params(run, record)
            self._runs[record.uid] = _Run(run.info.run_id, run.info.status, dict(run.data.tags))
        return self._runs[record.uid]

    def _find(self, record: RunRecord) -> Run | None:
        """Return the run of a record, or None. A run that shows something else than the store is set aside."""
        level = record.tags["stepwise.level"]
        wanted = f"tags.`stepwise.uid` = '{record.uid}' AND tags.`stepwise.level` = '{level}'"
        found = self._client.search_runs([self._known_experiment()], wanted, order_by=["attributes.start_time ASC"])
        agreeing = None
        for run in found:
            if not self._agrees(run, record):
                self._client.set_tag(run.info.run_id, "stepwise.level", "superseded")
                self._client.set_terminated(run.info.run_id, "KILLED")
            else:
                agreeing = agreeing or run
        return agreeing

    def _agrees(self, run: Run, record: RunRecord) -> bool:
        stored = {
            Value(metric.key, metric.value, metric.timestamp, metric.step)
            for key in IDENTIFYING
            if key in run.data.metrics
            for metric in self._client.get_metric_history(run.info.run_id, key)
        }
        return stored <= set(record.values)

    def _create(self, record: RunRecord) -> Run:
        tags = {**record.tags, "stepwise.uid": record.uid}
        return self._client.create_run(self._known_experiment(), record.started, tags, record.name)

    def _add_params(self, run: Run, record: RunRecord) -> None:
        """Add the params that a run lacks: all of a new one, and of one whose process died before it sent them."""
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in record.params.items() if key not in run.data.params]
        if params:
            self._client.log_batch(run.info.run_id, params=params, synchronous=True)

    def _send(self, record: RunRecord) -> None:
        from mlflow.entities import Metric, RunTag

        run = self._run(record)
        models = self._models.log(run.id, record.models)
        unsent = [value for value in record.values if value not in run.sent]
        for start in range(0, len(unsent), ROWS_PER_CALL):
            values = unsent[start : start + ROWS_PER_CALL]
            metrics = [
                # A speed belongs to no model: another trial may still revise it, and MLflow 3.17 fails on a second
                # value of a model's metric.
                Metric(*value, model_id=models.get(value.step) if value.key in OF_MODELS else None)
                for value in values
            ]
            self._client.log_batch(run.id, metrics, synchronous=True)
            run.sent.update(values)
        tags = {key: value for key, value in record.tags.items() if run.tags.get(key) != value}
        if tags:
            self._client.log_batch(run.id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
            run.tags.update(tags)

    def _describe(self, record: RunRecord, job: Job) -> None:
        """Attach the resolved job. A trial's is the job that has this trial only."""
        run = self._run(record)
        if not run.described:
            self._client.log_text(run.id, job.model_dump_json(indent=1), "job.json")
            run.described = True

    def _set_status(self, record: RunRecord, status: str) -> None:
        run = self._run(record)
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.id, status)
        else:
            self._client.set_terminated(run.id, status, record.ended)
        run.status = status


def _losses(manifest: Manifest, point: FrontierPoint) -> tuple[LossPoint, ...]:
    """Return the losses of a stage at the steps really taken: earlier stages may have ended early."""
    stage, taken = manifest.identity["stage"], manifest.metrics.steps_taken
    saved = stage["first_step"] + (stage["steps"] if taken is None else taken) - point.step
    return tuple(loss.model_copy(update={"step": loss.step - saved}) for loss in manifest.metrics.train_loss)


def _cause(error: BaseException) -> str:
    """Return one line: the system's words if they are at the root of the error, else MLflow's."""
    root = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    told = root if isinstance(root, OSError | sqlite3.Error) else error
    return shorten(first_line(told), LONGEST_CAUSE, placeholder=" ...")
