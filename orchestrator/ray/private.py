"""Everything that uses private parts of Ray, which may change with any version of it.

``LeanTrainer`` is Ray Train without the helpers that a trial has no use for. The manager of Ray datasets, of which a
trial has none, is a process that imports for two to three CPU-seconds while the trial waits to begin, and holds 110 MB
until it ends. The cleaner of placement groups stays: without it the cores of a killed driver stay taken for as long as
Ray runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.callback import RayTrainCallback
    from ray.train.v2._internal.execution.context import TrainRunContext
    from ray.train.v2.api.result import Result


class LeanTrainer(DataParallelTrainer):
    """Trains without the manager of Ray datasets, of which a trial has none."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, DatasetsCallback)]


class LocalTrainer(LeanTrainer):
    """Trains on the command's own Ray, which does not grow."""

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        return super()._initialize_and_run_controller(**parts | {"scaling_policy": _NoAutoscaler(self.scaling_config)})


class _NoAutoscaler(FixedScalingPolicy):
    """Asks for no more machines."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


def node_is_drained() -> bool:
    """Return, in a worker, whether a node of its Train run is drained.

    ``ray.train.get_preemption_info`` says the same, but waits for all workers at each call.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def refusal_of_strangers(gcs: str, timeout: float) -> str | None:
    """Call the GCS at HOST:PORT without a token. Returns the name of gRPC's code for its refusal; None if it answers.

    Raises ``ImportError`` without gRPC. ``timeout`` in seconds.
    """
    import grpc
    from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with grpc.insecure_channel(gcs, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name
    return None


def free_resources() -> list[dict[str, float]]:
    """Return what every node of the joined Ray has left at this moment."""
    import ray._private.state

    return list(ray._private.state.available_resources_per_node().values())


def most_resources() -> dict[str, int]:
    """Return what an autoscaling cluster may grow to."""
    import ray._private.state

    return ray._private.state.state.get_max_resources_from_cluster_config() or {}
