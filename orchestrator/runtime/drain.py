"""A node that is drained: about to be taken away, as a spot machine, with notice. What trains on it goes elsewhere."""

from __future__ import annotations


def node_is_drained() -> bool:
    """In a worker: whether a node of its Train run is drained.

    ``ray.train.get_preemption_info`` says the same, but waits for all workers at each call.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
