"""Prioritized replay: sum-tree and formulas are exact, the environment is captured whole, the arms act."""

from __future__ import annotations

import inspect
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from bygones.core.digest import digest
from bygones.core.errors import MissingExtra, RecipeError
from bygones.core.values import Window
from bygones.training.interventions import Permute, Reset, Roll
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.environment import Environment
from bygones.zoo.prioritized_replay import (
    SumTree,
    importance_weights,
    probabilities,
    sample,
)
from bygones.zoo.regimes import replay

AT = 40


def filled_tree(size: int, seed: int = 0) -> SumTree:
    tree, rng = SumTree(size), np.random.default_rng(seed)
    for _ in range(50):
        tree.update(rng.integers(size, size=5), rng.random(5) + 0.1)
    return tree


@pytest.mark.parametrize("size", [1, 2, 5, 16, 500])
def test_each_node_is_the_sum_of_its_leaves_and_the_leaves_decide_the_tree_to_the_bit(size: int):
    tree, other = filled_tree(size), filled_tree(size, seed=1)
    assert tree.total == pytest.approx(tree.leaves.sum(), rel=1e-12)
    other.load_state_dict(tree.state_dict())
    assert other._nodes.tobytes() == tree._nodes.tobytes()
    for one in (tree, other):
        one.update(np.array([0]), np.array([7.0]))
    assert other._nodes.tobytes() == tree._nodes.tobytes()


def test_a_place_is_found_where_the_running_sum_passes():
    tree = filled_tree(37)
    tree.update(np.arange(0, 37, 3), np.zeros(13))
    edges = np.cumsum(tree.leaves)
    sums = np.linspace(0, tree.total, 400, endpoint=False)
    assert tree.find(sums).tolist() == np.searchsorted(edges, sums, side="right").tolist()
    assert (tree.leaves[tree.find(sums)] > 0).all()


def test_probabilities_are_powers_over_their_sum_and_weights_are_ratios_to_the_least():
    p, alpha, beta = np.array([0.5, 2.0, 1.0, 4.0]), 0.6, 0.4
    tree = SumTree(6)  # of which two hold nothing
    tree.update(np.arange(4), p**alpha)
    expected = p**alpha / (p**alpha).sum()
    np.testing.assert_allclose(probabilities(tree)[:4], expected, rtol=1e-15)
    weights = importance_weights(tree, np.arange(4), beta)
    np.testing.assert_allclose(weights, ((p / p.min()) ** alpha) ** -beta, rtol=1e-14)
    full = (4 * expected) ** -beta  # (N·P)^-beta over the largest of them
    np.testing.assert_allclose(weights, full / full.max(), rtol=1e-14)
    uniform = SumTree(4)
    uniform.update(np.arange(4), p**0.0)
    assert importance_weights(uniform, np.arange(4), beta).tolist() == [1.0] * 4


def test_places_are_drawn_as_often_as_their_probability_says():
    """20 000 draws of 5 places: chi-square with 4 degrees of freedom, which strata can only lower."""
    tree = SumTree(5)
    tree.update(np.arange(5), np.array([1.0, 2.0, 3.0, 0.0, 4.0]))
    draws = np.random.default_rng(3)
    counts = np.bincount(
        np.concatenate([sample(tree, 20, draws) for _ in range(1000)]), minlength=5
    )
    expected = probabilities(tree) * 20_000
    assert counts[3] == 0
    alive = expected > 0
    assert ((counts[alive] - expected[alive]) ** 2 / expected[alive]).sum() < 18.5


def test_an_environment_goes_on_from_its_state_and_its_generator_to_the_bit():
    """Through the ends of episodes, which draw, and through cuts, which are no ends."""
    one, other = (Environment("CartPole-v1", seed, limit=15) for seed in (0, 1))
    actions = np.random.default_rng(0).integers(2, size=300).tolist()
    for action in actions[:33]:
        one.step(action)
    other.load_state_dict(one.state_dict())
    other.generator.bit_generator.state = one.generator.bit_generator.state
    seen = []
    for action in actions[33:]:
        (a, r, ended, cut), again = one.step(action), other.step(action)
        assert a.tobytes() == again[0].tobytes()
        assert (r, ended, cut) == again[1:]
        seen.append((ended, cut))
    assert (True, False) in seen
    assert (False, True) in seen
    assert digest(one.state_dict()) == digest(other.state_dict())


def test_a_state_alone_does_not_decide_the_next_episode():
    one, other = (Environment("CartPole-v1", seed) for seed in (0, 1))
    other.load_state_dict(one.state_dict())
    ended = False
    while not ended:
        _, _, ended, _ = one.step(1)
        other.step(1)
    assert one.observation.tobytes() != other.observation.tobytes()


def test_a_missing_package_or_environment_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RecipeError, match="gymnasium cannot make the environment 'CartPool-v1'"):
        Environment("CartPool-v1", 0)

    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtra, match=r"needs gymnasium, .* pip install 'bygones\[reinforc"):
        Environment("CartPole-v1", 0)


def test_an_environment_whose_state_is_no_plain_value_is_named_with_what_was_tried():
    one = Environment("CartPole-v1", 0)
    one._env.engine = object()
    with pytest.raises(RecipeError, match=r"attribute engine is a object. Tried: numbers, text"):
        one.state_dict()


def stepped(**settings: float) -> Run:
    run = Run(Recipe.of(replay.recipe, capacity=50, **settings), 0)
    run.advance(AT)
    return run


def test_transitions_are_kept_in_the_order_in_which_they_happened_and_written_around():
    run = stepped()
    run.advance(60)
    kept = run.parts.others["replay"].value
    assert run.parts.others["cursor"] == {"at": 10, "count": 60}
    for at in (0, 3, 20, 30):
        if not kept["ends"][at]:
            assert kept["next states"][at].tobytes() == kept["states"][at + 1].tobytes()
    assert kept["rewards"].min() == 1.0


def test_uniform_replay_has_equal_leaves_and_prioritized_replay_has_not():
    uniform, prioritized = (stepped(alpha=alpha) for alpha in (0.0, 0.6))
    assert {*uniform.parts.others["priorities"].value.leaves[:AT].tolist()} == {1.0}
    assert np.ptp(prioritized.parts.others["priorities"].value.leaves[:AT]) > 0.1


def test_refreshed_priorities_are_those_of_todays_networks_for_every_transition():
    run = stepped()
    run.intervene([Treatment("priorities", Reset(), Window(AT, AT + 1))])
    tree = run.parts.others["priorities"].value
    with torch.no_grad():
        deltas = replay.temporal_differences(
            run.parts, run.parts.others["replay"].value, np.arange(AT)
        ).numpy()
    expected = (np.abs(deltas).astype(np.float64) + 0.01) ** 0.6
    assert tree.leaves[:AT].tolist() == expected.tolist()
    assert not tree.leaves[AT:].any()


def test_scrambled_priorities_have_the_same_sum_and_a_shifted_replay_the_same_rows():
    run = stepped()
    tree, rows = run.parts.others["priorities"].value, run.parts.others["replay"].value
    leaves, total = tree.leaves.copy(), tree.total
    states = rows["states"].copy(), rows["actions"].copy()
    at = Window(AT, AT + 1)
    run.intervene([Treatment("priorities", Permute(), at), Treatment("replay", Roll(7), at)])
    assert sorted(tree.leaves) == sorted(leaves)
    assert tree.leaves.tolist() != leaves.tolist()
    assert tree.total == pytest.approx(total)
    assert np.array_equal(np.roll(states[0], 7, axis=0), rows["states"])
    assert np.array_equal(
        np.roll(states[1], 7), rows["actions"]
    )  # with the state that it belongs to


def test_the_target_is_copied_at_its_period_and_not_between():
    run = Run(Recipe.of(replay.recipe, period=8, capacity=50), 0)
    seen = []

    def look(run: Run) -> None:
        seen.append(digest(run.sources["target"].capture()))

    run.advance(26, at_boundary=look)
    assert [a != b for a, b in pairwise(seen)] == [(step + 1) % 8 == 0 for step in range(25)]


def test_the_target_is_treated_between_two_copies():
    """At a copy it equals the network, and a reset of it would be nothing."""
    period = inspect.signature(replay.recipe).parameters["period"].default
    for arm in replay.study().arms:
        for treatment in arm.treatments:
            if treatment.source == "target":
                assert treatment.window.start % period
