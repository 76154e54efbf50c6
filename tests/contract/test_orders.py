"""Every order policy: a pure function of key and position, that can be resumed anywhere."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bygones.core.errors import DesignError
from bygones.core.keyed_rng import Streams
from bygones.core.values import Lifetime
from bygones.training.orders import (
    ORDERS,
    AbstractOrder,
    Blocked,
    Curriculum,
    GraB,
    Reshuffle,
    SelfPaced,
    Sequential,
    ShuffleOnce,
    WithReplacement,
)
from bygones.training.orders.cursor import Cursor
from bygones.training.recipe import Parts
from bygones.training.sources import Order

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "orders.json").read_text())
KEY, OTHER_KEY = Streams(0).key("order"), Streams(1).key("order")
SCORES = tuple(float((7 * i) % 11) for i in range(11))  # 11 examples, 3 a batch: two are left over
POLICIES: dict[str, AbstractOrder] = {
    "reshuffle": Reshuffle(11, 3),
    "shuffle-once": ShuffleOnce(11, 3),
    "with-replacement": WithReplacement(11, 3),
    "sequential": Sequential(11, 3),
    "curriculum": Curriculum(11, 3, scores=SCORES, growth=8, first=0.3),
    "blocked": Blocked(11, 3, blocks=(0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1), length=4),
    "self-paced": SelfPaced(11, 3, threshold=1.0, growth=1.2),
    "grab": GraB(11, 3, dimension=2),
}
MODEL = torch.nn.Linear(2, 2)
DRAWS = [name for name in POLICIES if name != "sequential"]
WITHOUT_REPLACEMENT = ["reshuffle", "shuffle-once", "sequential"]

every_policy = pytest.mark.parametrize("name", list(ORDERS))


def show(cursor: Cursor, steps: int) -> list[list[int]]:
    """The rows of the next batches; where the order needs it, with feedback that depends on the rows."""
    rows = []
    for _ in range(steps):
        shown = cursor.next()
        rows.append(shown.tolist())
        value = np.cos(1.0 + shown)
        both = np.stack([value, np.sin(3.0 * shown)], axis=1)
        cursor.give_feedback(shown, both if cursor.order.feedback == "gradients" else 1 + value)
    return rows


def stream(order: AbstractOrder, key: int, length: int) -> list[list[int]]:
    return [order.rows(key, position).tolist() for position in range(length)]


def test_there_is_an_example_of_every_policy():
    assert list(POLICIES) == list(ORDERS)
    assert all(type(POLICIES[name]) is ORDERS[name] for name in ORDERS)


@every_policy
def test_equal_in_equal_out_in_any_order_of_asking(name: str):
    order = POLICIES[name]
    positions = [*range(30), *reversed(range(30)), 3, 1000, 7, 10**9]
    first = {p: order.rows(KEY, p).tolist() for p in positions}
    again = type(order)(**{f: getattr(order, f) for f in order.__dataclass_fields__})
    assert all(again.rows(KEY, p).tolist() == first[p] for p in positions)


@every_policy
def test_batches_have_the_right_shape_type_and_range(name: str):
    for position in (0, 1, 2, 3, 50):
        rows = POLICIES[name].rows(KEY, position)
        assert rows.shape == (3,)
        assert rows.dtype == np.int64
        assert rows.min() >= 0
        assert rows.max() < 11


@every_policy
def test_writing_into_a_batch_reaches_no_other_batch(name: str):
    order = POLICIES[name]
    before = stream(order, KEY, 8)
    for position in range(8):
        rows = order.rows(KEY, position)
        if rows.flags.writeable:
            rows[...] = 0
        else:
            with pytest.raises(ValueError, match="read-only"):
                rows[...] = 0
    assert stream(order, KEY, 8) == before


@every_policy
@pytest.mark.parametrize("at", range(9))
def test_resuming_at_any_position_gives_what_was_to_come(name: str, at: int):
    whole = Cursor(POLICIES[name], KEY)
    before = show(whole, at)
    resumed = Cursor(POLICIES[name], KEY, position=at, memory=dict(whole.memory))
    rest = show(whole, 12 - at)
    assert len(before) + len(rest) == 12
    assert show(resumed, 12 - at) == rest


@every_policy
def test_the_order_source_resumes_an_order_under_another_key_and_in_a_detour(name: str):
    def bound(key: int) -> tuple[Order, Cursor]:
        parts = Parts(
            model=MODEL,
            optimizer=torch.optim.SGD(MODEL.parameters()),
            data=(torch.zeros(POLICIES[name].num_examples),),
            order=POLICIES[name],
        )
        parts.cursor = Cursor(POLICIES[name], key)
        return Order(parts), parts.cursor

    one, cursor = bound(KEY)
    show(cursor, 4)
    cursor.detour = np.array([9, 2, 7], dtype=np.int64)
    show(cursor, 1)
    state = one.capture()
    to_come = show(cursor, 6)
    other, elsewhere = bound(OTHER_KEY)
    other.restore(state)
    assert show(elsewhere, 6) == to_come
    if POLICIES[name].feedback:
        return  # its batches are no function of key and position
    assert to_come[:2] == [POLICIES[name].rows(KEY, position).tolist() for position in (2, 7)]
    assert to_come[2] == POLICIES[name].rows(KEY, 7).tolist()  # back on course: three were skipped


@pytest.mark.parametrize("name", WITHOUT_REPLACEMENT)
@pytest.mark.parametrize("sizes", [(12, 4), (11, 3), (5, 5), (7, 1)])
def test_an_epoch_shows_each_example_once(name: str, sizes: tuple[int, int]):
    order = ORDERS[name](*sizes)
    for epoch in range(3):
        start = epoch * order.steps_per_epoch
        rows = np.concatenate(
            [order.rows(KEY, start + step) for step in range(order.steps_per_epoch)]
        )
        counts = Counter(rows.tolist())
        assert max(counts.values()) == 1
        assert len(counts) == order.steps_per_epoch * order.batch_size


def test_reshuffling_differs_between_epochs_and_shuffling_once_does_not():
    def epochs(order: AbstractOrder) -> list[str]:
        return [str(stream(order, KEY, 12)[e * 3 : e * 3 + 3]) for e in range(4)]

    assert len({*epochs(Reshuffle(11, 3))}) == 4
    assert len({*epochs(ShuffleOnce(11, 3))}) == 1
    assert len({*epochs(Sequential(11, 3))}) == 1


@pytest.mark.parametrize("name", DRAWS)
def test_different_keys_give_different_orders(name: str):
    drawn = {str(stream(POLICIES[name], Streams(seed).key("order"), 9)) for seed in range(8)}
    assert len(drawn) == 8


def test_the_second_epoch_of_one_seed_is_the_first_of_no_other():
    """With `seed + epoch` it would be the first epoch of the next seed."""
    order = Reshuffle(11, 3)
    epochs = [
        str([order.rows(Streams(seed).key("order"), 3 * epoch + s).tolist() for s in range(3)])
        for seed in range(12)
        for epoch in range(12)
    ]
    assert len({*epochs}) == len(epochs)


def test_sequential_draws_nothing():
    assert stream(Sequential(11, 3), KEY, 9) == stream(Sequential(11, 3), OTHER_KEY, 9)


def test_with_replacement_is_uniform():
    """12 000 draws of 6 examples: chi-square with 5 degrees of freedom stays below its 0.1% point."""
    rows = np.concatenate([WithReplacement(6, 6).rows(KEY, p) for p in range(2000)])
    counts = np.bincount(rows, minlength=6)
    assert ((counts - 2000) ** 2 / 2000).sum() < 20.5
    assert max(Counter(WithReplacement(6, 6).rows(KEY, 0).tolist()).values()) > 1


def test_a_curriculum_opens_from_the_easiest_to_all():
    order = Curriculum(100, 10, scores=tuple(float(-i) for i in range(100)), growth=50, first=0.2)
    easiest = [int(order.rows(KEY, position).min()) for position in range(200)]
    for position in range(50):
        still_closed = 100 - round((0.2 + 0.8 * position / 50) * 100)
        assert easiest[position] >= still_closed
    assert min(easiest[:10]) >= 64
    assert min(easiest[50:]) < 10
    assert all(len({*order.rows(KEY, p).tolist()}) == 10 for p in range(80))


def test_a_curriculum_opens_at_least_one_batch_and_breaks_ties_by_index():
    order = Curriculum(8, 4, scores=(1.0,) * 8, growth=5, first=0.01)
    assert sorted(order.rows(KEY, 0).tolist()) == [0, 1, 2, 3]


def test_a_blocked_order_shows_one_block_at_a_time_and_all_of_it_in_each_of_its_epochs():
    order = Blocked(10, 2, blocks=(0, 1) * 5, length=7)
    for position in range(42):
        assert {*(order.rows(KEY, position) % 2)} == {(position // 7) % 2}
    for epoch in (0, 2, 4, 7, 9):  # two batches of a block's five examples; the fifth is left out
        pair = np.concatenate([order.rows(KEY, epoch + step) for step in range(2)])
        assert len({*pair.tolist()}) == 4


@pytest.mark.parametrize(
    ("blocks", "length", "why"),
    [
        ((0, 1), 3, "a block for each example"),
        ((0, 0, 1, 1), 0, "at least one step"),
        ((0, 0, 0, 1), 3, "block 1 has 1"),
        ((0, 0, 2, 2), 3, "block 1 has 0"),
    ],
)
def test_a_blocked_order_that_cannot_be_is_refused(blocks: tuple[int, ...], length: int, why: str):
    with pytest.raises(DesignError, match=why):
        Blocked(4, 2, blocks=blocks, length=length)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, change) for name in POLICIES for change in ({"num_examples": 12}, {"batch_size": 4})),
    ("curriculum", {"growth": 9}),
    ("curriculum", {"first": 0.31}),
    ("curriculum", {"scores": (*SCORES[:-1], 99.0)}),
    ("blocked", {"length": 5}),
    ("self-paced", {"threshold": 1.1}),
    ("self-paced", {"growth": 1.3}),
    ("grab", {"dimension": 3}),
    ("blocked", {"blocks": (1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1)}),
]


@pytest.mark.parametrize(("name", "change"), VARIANTS)
def test_the_policy_hash_differs_with_any_setting(name: str, change: dict[str, Any]):
    order = POLICIES[name]
    settings = {f: getattr(order, f) for f in order.__dataclass_fields__}
    if "num_examples" in change and "scores" in settings:
        change = {**change, "scores": (*SCORES, 0.0)}
    if "num_examples" in change and "blocks" in settings:
        change = {**change, "blocks": (*settings["blocks"], 0)}
    assert type(order)(**{**settings, **change}).policy_hash() != order.policy_hash()
    assert type(order)(**settings).policy_hash() == order.policy_hash()


def test_no_two_policies_share_a_hash():
    assert len({order.policy_hash() for order in POLICIES.values()}) == len(POLICIES)


@every_policy
def test_using_a_policy_does_not_change_its_hash(name: str):
    before = POLICIES[name].policy_hash()
    stream(POLICIES[name], KEY, 5)
    assert POLICIES[name].policy_hash() == before


@every_policy
def test_first_rows_are_what_they_always_were(name: str):
    """If these move, every study ever run shows other batches under the same seed: its stored segments
    no longer continue, and its numbers cannot be reproduced. Then the store's format must be raised."""
    assert stream(POLICIES[name], KEY, 8) == GOLDEN["rows"][name]


@every_policy
def test_policy_hashes_are_what_they_always_were(name: str):
    """If these move, stored snapshots name policies that no run knows, and cannot be restored."""
    assert POLICIES[name].policy_hash() == GOLDEN["policy_hash"][name]


@pytest.mark.parametrize(
    ("name", "lifetime"),
    [
        ("reshuffle", Lifetime("phase", 3)),
        ("shuffle-once", Lifetime("unbounded")),
        ("with-replacement", Lifetime("exact", 1)),
        ("sequential", Lifetime("unbounded")),
        ("curriculum", Lifetime("phase", 8)),
        ("self-paced", Lifetime("unbounded")),
        ("grab", Lifetime("unbounded")),
    ],
)
def test_lifetimes(name: str, lifetime: Lifetime):
    assert POLICIES[name].lifetime == lifetime


@pytest.mark.parametrize("sizes", [(3, 4), (3, 0), (0, 1), (3, -1)])
@pytest.mark.parametrize("name", WITHOUT_REPLACEMENT)
def test_sizes_that_mean_nothing_are_refused(name: str, sizes: tuple[int, int]):
    with pytest.raises(DesignError, match="1 <= batch_size <= num_examples"):
        ORDERS[name](*sizes)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scores": (1.0,), "growth": 3}, "got 1 scores for 4 examples"),
        ({"scores": (1.0,) * 4, "growth": 0}, "at least one step"),
        ({"scores": (1.0,) * 4, "growth": 3, "first": 0.0}, "0 < first <= 1"),
        ({"scores": (1.0,) * 4, "growth": 3, "first": 1.1}, "0 < first <= 1"),
    ],
)
def test_a_curriculum_that_means_nothing_is_refused(settings: dict[str, Any], sentence: str):
    with pytest.raises(DesignError, match=sentence):
        Curriculum(4, 2, **settings)


def test_the_record_of_what_was_shown_tells_orders_apart():
    """Equal batches in equal order, equal record; the same batches in another order, another record."""

    def shown(positions: list[int]) -> str:
        cursor = Cursor(POLICIES["reshuffle"], KEY, detour=np.array(positions, dtype=np.int64))
        for _ in positions:
            cursor.next()
        return cursor.ids_chain

    assert shown([0, 1, 2]) == shown([0, 1, 2]) != shown([0, 2, 1])


# ------------------------------------------------------------------ what is still random, drawn anew


def resampled(order: AbstractOrder, *redraws: tuple[int, int], length: int = 40) -> list[list[int]]:
    return [order.rows_resampled(KEY, position, redraws).tolist() for position in range(length)]


@every_policy
def test_what_was_shown_stays_and_what_is_random_is_drawn_anew(name: str):
    order = POLICIES[name]
    before, after = stream(order, KEY, 40), resampled(order, (7, 1))
    assert after[:7] == before[:7]
    drawn_once = ("sequential", "shuffle-once", "grab")
    assert (after[7:] == before[7:]) is (name in drawn_once)
    assert resampled(order, (7, 1)) == after
    if name not in drawn_once:
        assert resampled(order, (7, 2))[7:] != after[7:]


def test_a_resampled_epoch_shows_no_example_twice():
    order = POLICIES["reshuffle"]  # epochs of three batches
    for at in range(1, 9):
        shown = resampled(order, (at, 0))
        for start in range(0, 39, 3):
            epoch = [*chain(*shown[start : start + 3])]
            assert len(set(epoch)) == len(epoch)


def test_the_rest_of_an_epoch_has_its_law_given_what_was_shown():
    order, counts = Reshuffle(5, 1), Counter[tuple[int, ...]]()
    first = stream(order, KEY, 2)
    for draw in range(1200):
        shown = resampled(order, (2, draw), length=5)
        assert shown[:2] == first
        counts[tuple(chain(*shown[2:]))] += 1
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom: 20.5 is exceeded once in a thousand times.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 20.5


def test_an_order_may_be_resampled_again():
    order = POLICIES["reshuffle"]
    once, twice = resampled(order, (4, 0)), resampled(order, (4, 0), (5, 0))
    assert twice[:5] == once[:5]
    assert sorted(chain(*twice[3:6])) != sorted(chain(*twice[6:9]))
    assert twice[5:] != once[5:]
    shown = [*chain(*twice[3:6])]
    assert len(set(shown)) == len(shown)


def test_a_resampled_order_is_resumed_from_its_state():
    def built() -> tuple[Cursor, Order]:
        cursor = Cursor(POLICIES["reshuffle"], KEY)
        parts: Any = SimpleNamespace(order=POLICIES["reshuffle"], cursor=cursor)
        return cursor, Order(parts)

    cursor, source = built()
    for _ in range(4):
        cursor.next()
    assert "redraws" not in source.capture()
    source.restore({**source.capture(), "redraws": np.array([[4, 3]])})
    state = source.capture()
    rest = [cursor.next().tolist() for _ in range(9)]
    assert rest == resampled(POLICIES["reshuffle"], (4, 3))[4:13]
    again, other = built()
    other.restore(state)
    assert [again.next().tolist() for _ in range(9)] == rest
    other.restore({name: leaf for name, leaf in state.items() if name != "redraws"})
    assert again.redraws == ()
