"""What a node's answer says of its clock."""

from __future__ import annotations

import pytest

from orchestrator.runtime.sight import certain_skew


@pytest.mark.parametrize(("clock", "skew"), [(100, 0), (130, 0), (160, 0), (90, 10), (167, 7)])
def test_clock_is_off_only_if_it_lies_outside_the_time_of_asking(clock, skew):
    assert certain_skew(clock, asked=100, answered=160) == skew
