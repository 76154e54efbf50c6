"""Snapshots as bytes and back: every type, every shape, every number, to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.specimen_recipes import every_recipe, trained

from bygones.core.digest import digest, is_array, same_bits
from bygones.core.errors import RecipeError
from bygones.core.values import State, Window
from bygones.study.snapshot_bytes import decode, encode
from bygones.training.interventions import Hold
from bygones.training.recipe import Recipe
from bygones.training.run import Run, Snapshot
from bygones.training.treatment import Treatment

TENSORS: dict[str, torch.Tensor] = {
    str(dtype).removeprefix("torch."): torch.tensor([[0, 1, 3], [2, 1, 0]]).to(dtype)
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
        torch.float8_e5m2, torch.complex64, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    )
} | {
    "0-dim": torch.tensor(3.5),
    "0-dim bfloat16": torch.tensor(1.5, dtype=torch.bfloat16),
    "empty": torch.zeros(0),
    "empty with shape": torch.zeros(3, 0, 2, dtype=torch.int64),
    "not contiguous": torch.arange(12.0).reshape(3, 4).T[::2],
    "expanded": torch.ones(1).expand(4),
    "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "not finite": torch.tensor([math.nan, math.inf, -math.inf, -0.0]),
    "a rare nan": torch.tensor([0x7FC12345], dtype=torch.int32).view(torch.float32),
    "subnormal": torch.tensor([5e-324, -1e-310], dtype=torch.float64),
    "parameter": torch.nn.Parameter(torch.rand(2)),
}  # fmt: skip
ARRAYS: dict[str, np.ndarray] = {
    name: np.array([[0, 1, 2], [3, 4, 5]]).astype(name)
    for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16")
} | {
    "0-dim": np.array(2.5),
    "0-dim integer": np.asarray(np.uint8(250)),
    "empty": np.zeros(0, dtype=np.int64),
    "empty with shape": np.zeros((2, 0, 3), dtype=np.float32),
    "big-endian": np.arange(4, dtype=">i4"),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "not contiguous": np.arange(10.0)[::-3],
    "text": np.array(["a", "bcd", ""]),
    "bytes": np.array([b"ab", b"c"]),
    "dates": np.array(["2026-01-21", "NaT"], dtype="datetime64[D]"),
    "not finite": np.array([math.nan, math.inf, -0.0]),
}
PLAIN: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "largest key": 2**64 - 1,
    "128 bits": 2**127 + 1,
    "negative": -(2**63),
    "float": 0.1,
    "whole float": 1.0,
    "minus zero": -0.0,
    "nan": math.nan,
    "another nan": -math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "smallest": 5e-324,
    "text": 'ü\n"\\\x00 and so on 日',
    "no text": "",
}


def there_and_back(states: dict[str, State], **others: Any) -> Snapshot:
    return decode(encode(Snapshot(3, states, **others)))


def assert_exact(one: Any, other: Any) -> None:
    assert same_bits(one, other)
    assert type(one) is type(other) or isinstance(one, torch.nn.Parameter)
    if is_array(one):
        assert (one.dtype, tuple(one.shape)) == (other.dtype, tuple(other.shape))


@pytest.mark.parametrize("name", list(TENSORS))
def test_every_kind_of_tensor_comes_back_exactly(name: str):
    back = there_and_back({"a": {"x": TENSORS[name]}}).states["a"]["x"]
    assert_exact(TENSORS[name], back)
    assert not back.requires_grad


@pytest.mark.parametrize("name", list(ARRAYS))
def test_every_kind_of_array_comes_back_exactly(name: str):
    assert_exact(ARRAYS[name], there_and_back({"a": {"x": ARRAYS[name]}}).states["a"]["x"])


@pytest.mark.parametrize("name", list(PLAIN))
def test_every_plain_value_comes_back_exactly(name: str):
    assert_exact(PLAIN[name], there_and_back({"a": {"x": PLAIN[name]}}).states["a"]["x"])


@settings(deadline=None)
@given(st.dictionaries(st.text(alphabet="ab/.#[({_:0", max_size=6), st.floats() | st.integers()))
def test_any_leaf_name_is_kept(state: dict[str, Any]):
    back = there_and_back({"a": state, "b": {}}).states
    assert list(back) == ["a", "b"]
    assert list(back["a"]) == list(state)
    assert digest(back) == digest({"a": state, "b": {}})


def test_names_that_look_alike_are_kept_apart():
    states: dict[str, State] = {
        "a": {"b": torch.zeros(1), "b/c": torch.ones(1)},
        "a/b": {"": torch.full((1,), 2.0), "c": np.ones(1)},
        "state": {},
        "entry": {"state": 1},
    }
    snapshot = Snapshot(3, states, entries={"a": {"b": torch.full((1,), 7.0)}, "empty": {}})
    back = decode(encode(snapshot))
    assert back.digest() == snapshot.digest()
    assert list(back.states) == list(states)
    assert back.entries.keys() == {"a", "empty"}


@pytest.mark.parametrize("diverged_at", [None, 0, 17])
def test_what_is_not_state_is_kept_too(diverged_at: int | None):
    snapshot = Snapshot(41, {}, {}, diverged_at, "ab12")
    assert decode(encode(snapshot)) == snapshot


@pytest.mark.parametrize("recipe", list(every_recipe().values()), ids=list(every_recipe()))
def test_a_run_goes_on_from_bytes_as_from_the_snapshot(recipe: Recipe):
    run, twin = Run(recipe, 0), Run(recipe, 5)
    run.advance(4)
    snapshot = run.snapshot()
    back = decode(encode(snapshot))
    assert back.digest() == snapshot.digest()
    twin.restore(back)
    twin.advance(7)
    run.advance(7)
    assert twin.snapshot().digest() == run.snapshot().digest()
    assert back.digest() == snapshot.digest()  # what was restored from is still what it was


def test_equal_snapshots_give_equal_bytes_and_others_do_not():
    run, again = Run(trained, 0), Run(trained, 0)
    run.advance(3)
    again.advance(3)
    before = encode(run.snapshot())
    assert encode(again.snapshot()) == before
    run.advance(4)
    assert encode(run.snapshot()) != before


def test_the_entry_of_an_open_window_is_part_of_it():
    run = Run(trained, 0)
    run.advance(4, [Treatment("moments", Hold(), Window(2, 6))])
    snapshot = run.snapshot()
    assert len(snapshot.entries) == 1
    back = decode(encode(snapshot))
    assert back.digest() == snapshot.digest()
    assert digest(back.entries) == digest(snapshot.entries)
    without = Snapshot(snapshot.step, snapshot.states)
    assert without.digest() != snapshot.digest()


@pytest.mark.parametrize("content", [b"", b"12345678", b"\x00" * 64, b"not a snapshot at all"])
def test_bytes_that_are_no_snapshot_are_refused(content: bytes):
    with pytest.raises(RecipeError, match="these bytes are not a snapshot"):
        decode(content)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_snapshot_that_is_cut_off_is_refused(keep: float):
    content = encode(Run(trained, 0).snapshot())
    with pytest.raises(RecipeError, match="these bytes are not a snapshot"):
        decode(content[: int(keep * len(content))])


def test_what_was_on_a_device_goes_back_to_one_and_the_rest_stays() -> None:
    """With a tensor that says so in place of one that is on a GPU."""

    class Elsewhere(torch.Tensor):
        device = torch.device("meta")  # type: ignore[assignment]

    there, here = torch.ones(2).as_subclass(Elsewhere), torch.zeros(())
    content = encode(Snapshot(0, {"moments": {"w/exp_avg": there, "w/step": here}}))
    restored = decode(content, "meta").states["moments"]
    assert restored["w/exp_avg"].is_meta  # type: ignore[union-attr]
    assert not restored["w/step"].is_meta  # type: ignore[union-attr]
    assert same_bits(decode(content).states["moments"]["w/exp_avg"], torch.ones(2))
