"""Randomness by address: nothing shared, nothing added, nothing global."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.specimen_recipes import trained

from bygones.core.keyed_rng import ROLES, Streams, generator, mix, mix_place
from bygones.training.generators import with_seeded_generators
from bygones.training.recipe import Recipe, build
from bygones.training.run import Run

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "streams.json").read_text())
address_parts = st.one_of(st.integers(), st.text(alphabet="abz09-_. :", max_size=6))


def test_no_two_places_of_any_two_seeds_share_a_key():
    """Seeds, roles and places on a grid; with `seed + place` most of these would collide."""
    grid = list(product(range(40), ROLES, range(40)))
    keys = {mix(Streams(seed).key(role), place) for seed, role, place in grid}
    assert len(keys) == len(grid) == 40 * 6 * 40


def test_neighbouring_addresses_draw_nothing_alike():
    """All pairs of 300 generators: no two draws of 64 bits agree."""
    drawn = [
        int(Streams(seed).at("order", place).integers(1 << 63))
        for seed in range(15)
        for place in range(20)
    ]
    assert len({*drawn}) == len(drawn)


@given(st.lists(address_parts, max_size=4), st.lists(address_parts, max_size=4))
def test_different_addresses_have_different_keys(one: list[int | str], other: list[int | str]):
    assert (mix(*one) == mix(*other)) == (one == other)


@given(st.lists(address_parts, min_size=1, max_size=4))
def test_equal_addresses_draw_alike(address: list[int | str]):
    one, other = generator(*address), generator(*address)
    assert one.random(5).tolist() == other.random(5).tolist()
    assert 0 <= mix(*address) < 1 << 64


@pytest.mark.parametrize("seed", [np.int64(3), np.int32(3), np.uint8(3), True + 2])
def test_a_seed_counts_by_its_value_and_not_by_its_type(seed: int):
    assert Streams(seed).key("order") == Streams(3).key("order")
    assert mix(np.str_("order"), 3) == mix("order", 3)


@pytest.mark.parametrize("seed", [1.0, None, b"1"])
def test_what_is_no_whole_number_is_no_seed(seed: object):
    with pytest.raises(TypeError):
        Streams(seed).key("order")  # pyright: ignore[reportArgumentType]


def test_zero_is_a_seed_like_any_other():
    assert len({Streams(seed).key("init") for seed in (0, 1, -1, 2**40)}) == 4


def test_drawing_more_in_one_place_shifts_nothing_elsewhere():
    streams = Streams(3)
    before = streams.at("order", 5).random(3).tolist()
    streams.at("order", 4).random(1000)
    streams.at("augmentation", 5).random(7)
    assert streams.at("order", 5).random(3).tolist() == before


def test_drawing_leaves_the_global_generators_alone():
    before = (torch.get_rng_state().tolist(), np.random.random_sample, random.getstate())
    numpys = np.random.get_state(legacy=False)["state"]["pos"]  # pyright: ignore
    Streams(0).at("order", 0).permutation(100)
    assert torch.get_rng_state().tolist() == before[0]
    assert np.random.get_state(legacy=False)["state"]["pos"] == numpys  # pyright: ignore
    assert random.getstate() == before[2]


def draws() -> list[float]:
    return [torch.rand(()).item(), float(np.random.rand()), random.random()]


def test_seeded_globals_depend_on_the_address_and_are_given_back():
    keys = {role: Streams(0).key(role) for role in ROLES}
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = draws()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    inside = []
    for place in (0, 1, 0):
        with with_seeded_generators(keys, place):
            inside.append(draws())
    assert inside[0] == inside[2]
    assert all(a != b for a, b in zip(inside[0], inside[1], strict=True))
    assert draws() == expected


def test_building_and_training_leave_the_global_generators_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = draws()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    Run(trained, 0).advance(3)
    assert draws() == expected


def test_what_is_built_depends_on_the_seed_and_not_on_the_globals():
    recipe = Recipe.of(trained)
    weights = []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(state)
        weights.append([p.detach().clone() for p in build(recipe, seed).model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not torch.equal(weights[0][0], weights[2][0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63), st.sampled_from(ROLES), st.integers(0, 2**40))
def test_the_draws_of_an_address_look_uniform(seed: int, role: str, place: int):
    """Mean of 4 000 uniforms within five standard errors: wrong once in two million."""
    mean = Streams(seed).at(role, place).random(4000).mean()
    assert abs(mean - 0.5) < 5 * (1 / 12) ** 0.5 / 4000**0.5


def test_keys_and_draws_are_what_they_always_were():
    """If these move, no stored segment can be continued and no published seed means what it meant."""
    assert {role: Streams(0).key(role) for role in ROLES} == GOLDEN["keys of seed 0"]
    assert mix("a", 1, "b") == GOLDEN["mix(a, 1, b)"]
    drawn = Streams(7).at("order", 2)
    assert drawn.integers(1 << 62, size=3).tolist() == GOLDEN["integers of seed 7, order, 2"]
    assert drawn.permutation(6).tolist() == GOLDEN["then a permutation of 6"]
    assert drawn.standard_normal(2).tolist() == GOLDEN["then two normals"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_places_hashed_in_blocks_have_the_addresses_that_each_has_alone(key, place):
    assert mix_place(key, place) == mix(key, place)
