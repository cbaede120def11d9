"""The models of a frontier in MLflow: logged models that point into the store, and aliases on the best ones.

The weights stay in the store. A logged model says in which folder, of which run, and after which other model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.winners import winners
from orchestrator.store import Manifest, StageStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

IDENTITY = "stepwise.checkpoint"
"""The tag with stage key and attempt. A checkpoint is one logged model, whichever trials share it."""


def registered_name(job: str) -> str:
    """Return the name under which a job's winners are registered."""
    return f"stepwise-{job}"


class Models:
    """The logged models of one experiment, as this process knows them."""

    def __init__(self, client: MlflowClient, experiment: str, store: StageStore) -> None:
        self.client, self.experiment, self.store = client, experiment, store
        self._known: dict[str, LoggedModel] = {}
        self._outputs: dict[str, set[str]] = {}

    def log(self, run_id: str, points: Iterable[FrontierPoint]) -> dict[int, str]:
        """Make the models of a run's frontier, each naming the one before it. Returns their ids by removed tokens."""
        from mlflow.entities import LoggedModelOutput

        made: dict[int, str] = {}
        before: str | None = None
        for point in points:
            model = self._model(point, run_id, before)
            made[point.removed_tokens] = before = model.model_id
            if model.model_id not in self._outputs_of(run_id):
                self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, point.removed_tokens)])
                self._outputs_of(run_id).add(model.model_id)
        return made

    def _outputs_of(self, run_id: str) -> set[str]:
        """Return the ids of the models that a run has: MLflow refuses one that is logged twice."""
        if run_id not in self._outputs:
            outputs = self.client.get_run(run_id).outputs
            self._outputs[run_id] = {output.model_id for output in outputs.model_outputs} if outputs else set()
        return self._outputs[run_id]

    def crown(self, name: str, points: list[FrontierPoint], runs: dict[str, str]) -> None:
        """Register the winners among the points and move their aliases. ``runs`` holds the run ids by trial."""
        crowned = winners(points)
        if crowned and not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name, description="The models to use of a Stepwise job.")
        for alias, point in crowned.items():
            model = self._model(point, runs[point.trial], None)
            self.client.set_registered_model_alias(name, alias, self._version(name, model, point))

    def _model(self, point: FrontierPoint, run_id: str, before: str | None) -> LoggedModel:
        manifest = self.store.read(point.stage_key)
        if manifest is None:
            raise FileNotFoundError(f"stage {point.stage_key} is not in {self.store.root}")
        identity = f"{manifest.key}/{manifest.attempt}"
        if identity not in self._known:
            found = self.client.search_logged_models([self.experiment], f"tags.`{IDENTITY}` = '{identity}'")
            self._known[identity] = found[0] if found else self._create(point, manifest, run_id, before)
        return self._known[identity]

    def _create(self, point: FrontierPoint, manifest: Manifest, run_id: str, before: str | None) -> LoggedModel:
        sha256 = next((file.sha256 for file in manifest.files if file.path == "model.safetensors"), "")
        params = {key: str(getattr(point, key)) for key in ("method", "seed", "stage", "removed_tokens")}
        tags = {
            IDENTITY: f"{manifest.key}/{manifest.attempt}",
            "stepwise.folder": str(self.store.folder(manifest)),
            "stepwise.sha256": sha256,
            **({"stepwise.previous_model": before} if before else {}),
        }
        name = f"{point.trial}-stage{point.stage}-k{point.removed_tokens:03d}".replace(".", "_")
        model = self.client.create_logged_model(self.experiment, name, run_id, tags, params, "checkpoint")
        return self.client.finalize_logged_model(model.model_id, "READY")

    def _version(self, name: str, model: LoggedModel, point: FrontierPoint) -> str:
        for version in self.client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(IDENTITY) == model.tags[IDENTITY]:
                return version.version
        measured = ("exact_match", "removed_tokens", "generated_tokens", "examples_per_second")
        tags = {key: f"{getattr(point, key):g}" for key in measured}
        tags |= {key: model.tags[key] for key in (IDENTITY, "stepwise.folder")}
        version = self.client.create_model_version(
            name, model.artifact_location, model.source_run_id, tags, await_creation_for=0, model_id=model.model_id
        )
        return version.version
