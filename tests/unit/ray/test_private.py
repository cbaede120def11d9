"""Which of Ray Train's helpers a trial keeps."""

from __future__ import annotations

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from orchestrator.ray.private import LeanTrainer, LocalTrainer


@pytest.mark.parametrize("trainer", [LeanTrainer, LocalTrainer])
def test_cores_of_a_killed_driver_are_given_back_and_no_dataset_is_managed(trainer: type[LeanTrainer]) -> None:
    kept = {type(kept) for kept in trainer(print, scaling_config=ScalingConfig())._create_default_callbacks()}
    assert PlacementGroupCleanerCallback in kept
    assert DatasetsCallback not in kept
