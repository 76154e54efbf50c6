"""Plain data: what counts as such, copied, digested and written back in place."""

from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn

from bygones.attach.sources.plain_data import (
    Container,
    PlainData,
    build_plain,
    copy_plain,
    differing_items,
    fill,
    same_plain,
)
from bygones.core.digest import digest

VALUES = [
    None,
    3,
    "text",
    torch.arange(3.0),
    np.arange(3),
    [],
    [1, [2.0, None]],
    (1, torch.zeros(2)),
    {"a": [torch.ones(2)], ("b", 1): None},
    deque([1, 2, 3]),
    {3, 1, 2},
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_copy_is_digested_and_built_again(value):
    assert value in PlainData(set())
    copied = copy_plain(value)
    assert len(digest(copied)) == 64
    built = build_plain(copied)
    assert type(built) is type(value)
    assert same_plain(built, copied)


def test_a_copy_shares_no_memory():
    past = [torch.zeros(2)]
    copied = copy_plain(past)
    past[0] += 1
    past.append(torch.ones(1))
    assert len(copied) == 1
    assert not copied.items[0].any()
    built = build_plain(copied)
    built[0] += 1
    assert not copied.items[0].any()


def test_what_belongs_to_a_module_or_is_an_object_is_no_plain_data():
    parameter = nn.Parameter(torch.zeros(2))
    assert [parameter] not in PlainData({id(parameter)})
    assert [parameter] in PlainData(set())
    assert [nn.Linear(1, 1)] not in PlainData(set())
    assert {int: 1} not in PlainData(set())
    assert [0] * 60_000 not in PlainData(set())


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ([1, 2, 3], [1]),
        ([], [torch.ones(2), 4]),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}),
        (deque([1], maxlen=5), deque([7, 8], maxlen=5)),
        ({1, 2}, {5}),
        (torch.zeros(3), torch.ones(3)),
    ],
    ids=["shorter", "longer", "other keys", "deque", "set", "array"],
)
def test_a_value_is_filled_in_place(held, wanted):
    before = held
    assert fill(held, copy_plain(wanted))
    assert held is before
    assert same_plain(held, copy_plain(wanted))
    assert getattr(held, "maxlen", None) == getattr(wanted, "maxlen", None)


def test_equal_items_are_left_alone_and_views_are_not_written_through():
    data = torch.arange(6.0).reshape(3, 2)
    kept, replaced = data[0], data[1]
    past = [kept, replaced]
    assert fill(past, copy_plain([data[0], torch.tensor([9.0, 9.0]), torch.zeros(1)]))
    assert past[0] is kept
    assert past[1].tolist() == [9, 9]
    assert data.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [((1, 2), (1, 3)), ([1], (1,)), (torch.zeros(2), torch.zeros(3)), (None, [])],
)
def test_what_cannot_be_filled_is_left_alone(held, wanted):
    before = copy_plain(held)
    assert not fill(held, copy_plain(wanted))
    assert same_plain(held, before)


def test_items_that_differ_are_named():
    one, other = (
        copy_plain({"a": torch.zeros(2), "b": 1}),
        copy_plain({"a": torch.zeros(2), "b": 2}),
    )
    assert differing_items(one, other) == ["['b']"]
    assert differing_items(copy_plain([1, 2]), copy_plain([1])) == []


def test_a_kind_of_container_is_part_of_the_copy():
    assert copy_plain(OrderedDict(a=1)).kind == "dict:OrderedDict"
    assert digest(copy_plain([1])) != digest(copy_plain((1,)))
    assert copy_plain([]) == Container("list", (), ())


def test_what_is_equal_is_not_touched():
    waiting = deque([1, 2, 3])
    seen = iter(waiting)
    next(seen)
    assert fill(waiting, copy_plain(waiting))
    assert list(seen) == [2, 3]
