"""The first difference of two runs, by leaf and by index."""

from __future__ import annotations

import math

import numpy as np

from bygones.core.first_difference import first_differing_index, first_differing_leaf

STATES = {"weights": {"b": 1.0, "a": np.zeros(2)}, "order": {"epoch": 3}}


def test_equal_states_have_no_first_difference():
    assert first_differing_leaf(STATES, {**STATES, "order": {"epoch": 3}}) is None
    nan = {"weights": {"a": math.nan}}
    assert first_differing_leaf(nan, {"weights": {"a": math.nan}}) is None


def test_sources_come_in_their_order_and_leaves_by_name():
    other = {"order": {"epoch": 4}, "weights": {"b": 2.0, "a": np.ones(2)}}
    assert first_differing_leaf(STATES, other) == "weights/a"
    assert first_differing_leaf(other, STATES) == "order/epoch"


def test_what_one_of_them_lacks_differs():
    assert first_differing_leaf(STATES, {"weights": STATES["weights"]}) == "order/epoch"
    assert first_differing_leaf({}, STATES) == "weights/a"


def test_signs_of_zero_and_types_are_told_apart():
    assert first_differing_leaf({"w": {"a": 0.0}}, {"w": {"a": -0.0}}) == "w/a"
    assert first_differing_leaf({"w": {"a": 1}}, {"w": {"a": 1.0}}) == "w/a"


def test_sequences_are_compared_as_far_as_both_go():
    assert first_differing_index([1, 2, 3], [1, 5, 4]) == 1
    assert first_differing_index([1, 2], [1, 2, 3]) is None
    assert first_differing_index([], [1]) is None
