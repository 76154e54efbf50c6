"""A step captured as a graph, with a graph of our own in CUDA's place: what is read, copied and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bygones.training.lanes import cuda_graphs as graphs


class Graph:
    """Does again, into the same tensors, what was captured."""

    def __init__(self, step: Callable[[], Sequence[Tensor]]) -> None:
        self.step, self.made = step, [tensor.clone() for tensor in step()]

    def replay(self) -> None:
        for place, tensor in zip(self.made, self.step(), strict=True):
            place.copy_(tensor)


def capture(step: Callable[[], Sequence[Tensor]]) -> Any:
    step()  # to warm up
    graph = Graph(step)
    return graph, graph.made


def count_and_add(statistics: Tensor, batch: Tensor) -> list[Tensor]:
    return [statistics.add_(1) + batch]


def test_a_captured_step_reads_what_is_new_and_writes_where_it_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs, "_capture", capture)
    statistics, batch = torch.zeros(2), torch.ones(2)
    step = graphs.capture_graph(count_and_add, [statistics], [batch])
    assert statistics.tolist() == [0, 0]  # whatever came before the first step
    assert step(statistics, batch)[0].tolist() == [2, 2]
    assert step(statistics, 5 * batch)[0].tolist() == [7, 7]
    assert statistics.tolist() == [2, 2]
    assert batch.tolist() == [1, 1]


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_what_cannot_be_captured_is_launched_and_what_does_not_fit_is_said(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(step: Callable[[], Any]) -> Any:
        step()
        raise error

    monkeypatch.setattr(graphs, "_capture", refuse)
    statistics, batch = torch.zeros(2), torch.ones(2)
    if error is torch.OutOfMemoryError:
        with pytest.raises(error):
            graphs.capture_graph(count_and_add, [statistics], [batch])
    else:
        assert graphs.capture_graph(count_and_add, [statistics], [batch]) is count_and_add
    assert statistics.tolist() == [0, 0]
