"""Words for how a state was lost."""

import pytest
import torch

from bygones.attach.sources.plain_data import copy_plain
from bygones.audit.loss_text import describe_loss, name_leaves

THIRD = torch.tensor([1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ({"value": 17}, {"value": 3}, "3 instead of 17"),
        ({"value": THIRD}, {"value": None}, "it holds None"),
        ({"value": [1, 2, 3]}, {"value": [1]}, "1 item instead of 3"),
        ({"value": [1]}, {"value": []}, "it is empty; 1 item was carried"),
        ({"value": THIRD}, {"value": THIRD.bfloat16()}, "float32 became bfloat16"),
        ({"a": THIRD}, {"a": THIRD.bfloat16().float()}, "rounded to bfloat16"),
        ({"a": THIRD}, {"a": THIRD[:1]}, "its shape is [1] instead of [2]"),
        (
            {"a/m": THIRD, "b/m": 2 * THIRD},
            {"a/m": 2 * THIRD, "b/m": THIRD},
            "that of b/m lies on a/m",
        ),
        ({"a": THIRD, "b": THIRD}, {"a": 3 * THIRD, "b": 5 * THIRD}, ""),
    ],
    ids=["number", "none", "fewer", "empty", "type", "rounded", "shape", "swapped", "unknown"],
)
def test_the_mechanism_is_said_where_it_is_seen(mine, theirs, said):
    mine, theirs = ({k: copy_plain(v) for k, v in state.items()} for state in (mine, theirs))
    expected = "not what was carried" + (f": {said}" if said else "")
    assert describe_loss(mine, theirs, as_new=False) == expected
    assert describe_loss(mine, theirs, as_new=True).startswith("lost: the resumed run goes on")


def test_nothing_at_all_is_said_so():
    assert describe_loss({"value": 1}, {}, as_new=False) == "lost: the resumed run holds nothing"


def test_items_of_a_value_are_named():
    one, other = ({"value": copy_plain({"w": 1, "b": b})} for b in (1, 2))
    assert name_leaves(one, other, whole_source=True) == "['b']"
    assert name_leaves({"value": 1}, {"value": 2}, whole_source=True) == ""


def test_paths_of_leaves_are_written_with_whole_brackets():
    one = {"rates/[0": 1, "pairs/(1/#3": 2, "same": 0}
    other = {"rates/[0": 3, "pairs/(1/#3": 4, "same": 0}
    assert name_leaves(one, other, whole_source=True) == "pairs[1][3], rates[0]"
