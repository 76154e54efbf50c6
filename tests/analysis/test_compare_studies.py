"""Comparison of studies: what is pooled, and what would count twice."""

import numpy as np
import pytest
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.compare_studies import side_by_side
from bygones.core.errors import DesignError


def made(seeds: range, recipe: str = ""):
    outcomes = make_outcomes(num_seeds=len(seeds), num_inputs=8).assign_coords(seed=[*seeds])
    digests = {"recipe": recipe} if recipe else {}
    return outcomes.assign_attrs(digests=digests)


def test_the_same_runs_are_not_pooled_with_themselves():
    one = made(range(6), "a")
    with pytest.raises(
        DesignError, match="trained the same runs: one recipe, and 6 seeds in common"
    ):
        side_by_side([one, one])
    with pytest.raises(DesignError, match="2 seeds in common, like 4"):
        side_by_side([one, made(range(4, 10), "a")])
    assert side_by_side([one, made(range(6, 12), "a")])
    assert side_by_side([one, made(range(6), "b")])


def test_without_digests_the_same_losses_of_a_seed_are_the_same_run():
    one, other = made(range(6)), made(range(6))
    with pytest.raises(DesignError, match="trained the same runs"):
        side_by_side([one, other])
    other["train_loss"] = other["train_loss"] + np.float32(0.5)
    assert side_by_side([one, other])
