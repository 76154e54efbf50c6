"""Blind Cliffwalk: exact values and waits, and the published signature of prioritized replay."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from bygones.training.fork_check import check_fork
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.zoo.prioritized_replay import SumTree, sample
from bygones.zoo.worlds import cliffwalk
from bygones.zoo.worlds.cliffwalk import mean_wait, num_transitions, transitions, true_values


def updates_until_solved(states: int, alpha: float, seed: int, most: int) -> int:
    """Updates until the mean squared error of all values is below 0.001; `most` if it never is."""
    run, truth = (
        Run(Recipe.of(cliffwalk.recipe, states=states, alpha=alpha), seed),
        true_values(states),
    )
    while run.step < most:
        run.advance(run.step + 10)
        if ((table(run) - truth) ** 2).mean() < 1e-3:
            break
    return run.step


def table(run: Run) -> np.ndarray:
    assert isinstance(run.parts.model, cliffwalk.Table)
    return run.parts.model.values.detach().numpy().copy()


def first_draws(alpha: float, seeds: range, states: int = 4) -> np.ndarray:
    """Draws until the rewarded transition is drawn, by seed; all others have an error of 0 till then."""
    found = []
    for seed in seeds:
        size, draws = num_transitions(states), np.random.default_rng(seed)
        tree, place = SumTree(size), -1
        tree.update(np.arange(size), np.ones(size))
        for count in range(1, 100 * size):
            place = int(sample(tree, 1, draws)[0])
            if place == size - 1:
                found.append(count)
                break
            tree.update(np.array([place]), np.array([cliffwalk.EPSILON**alpha]))
    return np.array(found)


def test_the_memory_holds_every_sequence_of_actions_until_its_end():
    rows = transitions(3)
    walked = []
    for code in range(8):
        for state in range(3):
            right = code >> state & 1
            walked.append((state, right))
            if not right:
                break
    assert sorted(map(tuple, rows.tolist())) == sorted(walked)
    assert len(rows) == num_transitions(3)
    assert rows[-1].tolist() == [2, 1]


def test_the_true_values_are_the_fixed_point_of_the_update():
    run = Run(Recipe.of(cliffwalk.recipe, states=4, lr=0.5), 0)
    with torch.no_grad():
        next(run.parts.model.parameters()).copy_(torch.from_numpy(true_values(4)))
    run.advance(200)
    np.testing.assert_allclose(table(run), true_values(4), atol=1e-12)


def test_without_priorities_replay_waits_n_updates_and_with_them_half_of_it():
    """Means of 200 seeds of 30 transitions; four standard errors are allowed."""
    uniform, prioritized = (first_draws(alpha, range(200)) for alpha in (0.0, 1.0))
    count = num_transitions(4)
    assert prioritized.max() <= count
    spread = np.sqrt((count**2 - 1) / 12 / 200)  # of a uniform law on 1 … N
    assert abs(prioritized.mean() - mean_wait(4, prioritized=True)) < 4 * spread
    assert abs(uniform.mean() - mean_wait(4, prioritized=False)) < 4 * count / 200**0.5
    assert uniform.max() > count


def test_prioritized_replay_needs_fewer_updates_and_the_more_so_the_longer_the_row():
    """Medians of three seeds; Schaul et al. 2016, figure 1."""
    ratios = [solved_ratio(states, range(2), most=4_000) for states in (3, 5)]
    assert ratios[0] > 1
    assert ratios[1] > ratios[0]


@pytest.mark.long
def test_the_gain_of_priorities_grows_with_every_two_states():
    ratios = [solved_ratio(states, range(7), most=40_000) for states in (4, 6, 8)]
    assert ratios[0] > 1.5
    assert all(later > 1.4 * earlier for earlier, later in pairwise(ratios))


def solved_ratio(states: int, seeds: range, most: int) -> float:
    uniform, prioritized = (
        np.median([updates_until_solved(states, alpha, seed, most) for seed in seeds])
        for alpha in (0.0, 1.0)
    )
    return float(uniform / prioritized)


def test_a_fork_is_exact_and_needs_priorities_and_draws():
    certificate = check_fork(Recipe.of(cliffwalk.recipe, states=4), at=[5], until=30)
    assert {"priorities", "replay draws"} <= set(certificate.needed)
