"""Canonical bytes: equal values alike everywhere, and one bit, type, shape or name apart never."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bygones.core.digest import as_array, byte_chunks, digest, is_array, same_bits
from bygones.core.values import Window
from bygones.training.interventions import MatchedNull, Nudge, Reset, Scale
from bygones.training.treatment import Treatment

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "digests.json").read_text())
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
float_arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16]), hnp.array_shapes(max_dims=3, max_side=4)
)
TORCH_TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.complex64, torch.complex128, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def strictly_equal(one: Any, other: Any) -> bool:
    """Equality that tells 1 from 1.0 from True, and 0.0 from -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(strictly_equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(strictly_equal(one[k], other[k]) for k in one)
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@given(values, values)
def test_digests_are_equal_exactly_for_equal_values(one: Any, other: Any):
    assert (digest(one) == digest(other)) == strictly_equal(one, other)


@given(values)
def test_the_same_value_again_has_the_same_digest(value: Any):
    assert digest(copy.deepcopy(value)) == digest(value)
    assert len(digest(value)) == 64


@given(st.dictionaries(st.text(max_size=4), scalars, max_size=6))
def test_the_order_of_names_does_not_matter(mapping: dict[str, Any]):
    assert digest(dict(reversed(mapping.items()))) == digest(mapping)


@given(st.lists(st.text(max_size=5), max_size=5), st.integers(0, 5))
def test_where_one_item_ends_and_the_next_begins_matters(items: list[str], at: int):
    joined = [*items[:at], "".join(items[at : at + 2]), *items[at + 2 :]]
    assert (digest(joined) == digest(items)) == (joined == items)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["asb", "c"], ["a", "bsc"]),
        ([b"abb", b"c"], [b"a", b"bbc"]),
        ([1, "2s3"], [1, "2", "3"]),
        ({"a": "bsc", "d": "e"}, {"a": "b", "c": "e"}),
        ([12, 3], [1, 23]),
        (0.1, math.nextafter(0.1, 1)),
        (1e300, math.nextafter(1e300, math.inf)),
        ([1], [True]),
    ],
)
def test_pairs_that_a_careless_encoding_would_confuse(one: Any, other: Any):
    assert digest(one) != digest(other)


def test_whole_numbers_are_written_one_by_one_though_all_at_once():
    assert b"".join(byte_chunks((1, 22, -3))) == b"l1:3i1:1i2:22i2:-3"
    assert b"".join(byte_chunks([1, "22", -3])) == b"l1:3i1:1s2:22i2:-3"


@given(float_arrays, st.data())
def test_one_bit_of_an_array_changes_its_digest(array: np.ndarray, data: st.DataObject):
    raw = bytearray(array.tobytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    flipped = np.frombuffer(bytes(raw), dtype=array.dtype).reshape(array.shape)
    assert digest(flipped) != digest(array)
    assert not same_bits(flipped, array)
    assert same_bits(array.copy(), array)


@given(float_arrays)
def test_layout_in_memory_does_not_matter(array: np.ndarray):
    assert digest(np.asfortranarray(array)) == digest(array)
    assert same_bits(np.asfortranarray(array), array)
    tensor = torch.from_numpy(array.copy())
    assert digest(tensor) == digest(array)
    assert digest(tensor.T.contiguous().T if tensor.ndim == 2 else tensor) == digest(tensor)


@pytest.mark.parametrize("dtype", TORCH_TYPES, ids=str)
def test_every_type_of_tensor_has_a_digest_that_sees_one_element(dtype: torch.dtype):
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    other = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    assert digest(tensor) == digest(tensor.clone()) != digest(other)
    assert same_bits(tensor, tensor.clone())
    assert not same_bits(tensor, other)
    assert digest(tensor) != digest(tensor.reshape(4))
    assert len(as_array(tensor).tobytes()) == tensor.numel() * tensor.element_size()


def test_types_shapes_and_kinds_are_told_apart():
    zeros = [torch.zeros(2, dtype=dtype) for dtype in TORCH_TYPES]
    apart = [
        *zeros,
        torch.zeros(2, 1),
        torch.zeros(1, 2),
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(0, 3),
        np.zeros(2, dtype=">f8"),
        np.array("a"),
        0,
        0.0,
        -0.0,
        False,
        None,
        "",
        b"",
        "0",
        [],
        {},
        [0],
        [[0]],
        {"0": 0},
        [["0", 0]],
        math.inf,
        -math.inf,
        math.nan,
    ]
    assert len({digest(value) for value in apart}) == len(apart)


def test_nan_equals_nan_and_minus_zero_is_not_zero():
    nan = torch.tensor([math.nan, 0.0])
    assert same_bits(nan, nan.clone())
    assert digest(math.nan) == digest(math.nan)
    assert not same_bits(torch.tensor([-0.0]), torch.tensor([0.0]))
    assert not same_bits(torch.zeros(1), np.zeros(1, dtype=np.float32))
    assert not same_bits(torch.zeros(1), 0.0)


@dataclass(frozen=True)
class One:
    value: int = 1


@dataclass(frozen=True)
class Other:
    value: int = 1


def test_a_dataclass_is_its_class_and_its_fields():
    assert digest(One()) == digest(One(1))
    assert len({digest(One()), digest(One(2)), digest(Other()), digest({"value": 1})}) == 4


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, np.array([None]), np.array(["a", object()]), lambda: 0, One],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_canonical_bytes_is_refused(value: Any):
    with pytest.raises(TypeError, match="no canonical bytes"):
        digest(value)


def test_what_counts_as_an_array():
    assert [is_array(v) for v in (np.zeros(1), torch.zeros(1), np.float32(1), 1.0, [1], "a")] == [
        *(True, True, False, False, False, False)
    ]


def test_digests_are_what_they_always_were():
    """If these move, every address in every store moves: finished work is not found and is done again,
    and the hashes in published bundles no longer verify. Then the format number must be raised."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = {
        "none": digest(None),
        "nested": digest({"b": [1, 2.5, "x", True], "a": {"": None}}),
        "float32 array": digest(array),
        "bfloat16 tensor": digest(torch.tensor([1.5, -2.0], dtype=torch.bfloat16)),
        "window": digest(Window(300, 301)),
        "reset of moments": Treatment("moments", Reset(), Window(300, 301)).digest(),
        "null of a scale": Treatment(
            "moments", MatchedNull(of=Scale(0.5)), Window(1, 2), "*/exp_avg*"
        ).digest(),
    }
    assert found == GOLDEN


def test_every_field_of_a_treatment_is_in_its_digest():
    treatments = [
        Treatment("moments", Reset(), Window(1, 2)),
        Treatment("weights", Reset(), Window(1, 2)),
        Treatment("moments", Scale(0.0), Window(1, 2)),
        Treatment("moments", Nudge(0.0), Window(1, 2)),
        Treatment("moments", Scale(0.1), Window(1, 2)),
        Treatment("moments", Reset(), Window(1, 3)),
        Treatment("moments", Reset(), Window(0, 2)),
        Treatment("moments", Reset(), Window(1, 2), "w/*"),
        Treatment("moments", MatchedNull(of=Reset()), Window(1, 2)),
        Treatment("moments", MatchedNull(of=Reset(), draw=1), Window(1, 2)),
    ]
    assert len({treatment.digest() for treatment in treatments}) == len(treatments)
