"""A recorded step without what changes nothing: the same numbers, from fewer operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from bygones.training.lanes.graph_passes import simplify


def operations(graph_module: torch.fx.GraphModule) -> list[str]:
    return [str(n.target) for n in graph_module.graph.nodes if n.op == "call_function"]


def test_views_of_the_whole_and_double_transposes_are_left_out() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        return (x.expand(2, 3).view(2, 3).transpose(0, 1).transpose(0, 1) * 1) + fixed

    fixed, x = torch.ones(2, 3), torch.arange(6.0).view(2, 3)
    made = simplify(make_fx(step)(fixed, x), [fixed], [x])
    assert operations(made) == ["aten.mul.Tensor", "aten.add.Tensor"]
    assert torch.equal(made(fixed, x), step(fixed, x))


def test_transposes_that_do_not_undo_each_other_stay() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        return x.transpose(0, 1).transpose(1, 2) + fixed

    fixed, x = torch.zeros(1), torch.arange(24.0).view(2, 3, 4)
    made = simplify(make_fx(step)(fixed, x), [fixed], [x])
    assert torch.equal(made(fixed, x), step(fixed, x))


def test_a_view_of_what_stays_is_taken_once_and_sees_what_is_written_there() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        return x @ fixed.transpose(0, 1)

    fixed, x = torch.ones(2, 3), torch.ones(1, 3)
    made = simplify(make_fx(step)(fixed, x), [fixed], [x])
    assert operations(made) == ["aten.mm.default"]
    with torch.no_grad():
        fixed.mul_(2)
    assert torch.equal(made(fixed, x), step(fixed, x))


def test_a_view_of_what_changes_is_taken_each_time() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        return fixed * x.transpose(0, 1)

    fixed, x = torch.ones(2, 2), torch.arange(4.0).view(2, 2)
    made = simplify(make_fx(step)(fixed, x), [fixed], [x])
    assert torch.equal(made(fixed, x + 1), step(fixed, x + 1))


def test_a_constant_that_is_written_into_is_made_anew() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        return torch.zeros(3).add_(x) + torch.ones(3) + fixed

    fixed, x = torch.zeros(3), torch.arange(3.0)
    made = simplify(make_fx(step)(fixed, x), [fixed], [x])
    assert operations(made).count("aten.zeros.default") == 1
    assert "aten.ones.default" not in operations(made)
    for _ in range(2):
        assert torch.equal(made(fixed, x), step(fixed, x))


def test_a_constant_that_is_written_into_through_a_view_is_made_anew() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        sums = torch.zeros(2, 3)
        sums.transpose(0, 1)[0].add_(x)
        return sums + fixed

    fixed, x = torch.zeros(2, 3), torch.ones(2)
    made = simplify(make_fx(step)(fixed, x), [fixed], [x])
    for _ in range(2):
        assert torch.equal(made(fixed, x), step(fixed, x))


def test_what_it_is_shown_to_see_the_shapes_is_not_written_into() -> None:
    def step(fixed: Tensor, x: Tensor) -> Tensor:
        return fixed.add_(x)

    fixed, x = torch.zeros(3), torch.ones(3)
    recorded = make_fx(step)(fixed.clone(), x)
    simplify(recorded, [fixed], [x])
    assert torch.equal(fixed, torch.zeros(3))


def test_no_progress_bar_is_made_whose_lock_a_worker_would_leave_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bar(**settings: object) -> None:
        raise AssertionError("a progress bar was made")

    monkeypatch.setattr("torch.fx.interpreter.tqdm", bar)
    fixed, x = torch.zeros(3), torch.arange(3.0)
    made = simplify(make_fx(torch.add)(fixed, x), [fixed], [x])
    assert torch.equal(made(fixed, x), x)
