"""The recorded step on a GPU, as one CUDA graph: one launch where there were hundreds.

In a small network a GPU waits for the next operation to be sent to it; a graph is sent as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Step = Callable[..., Sequence[Tensor]]

_WARM_UP = 3  # passes before a capture, in which libraries take their workspaces (torch's advice)


def captured(step: Step, fixed: Sequence[Tensor], others: Sequence[Tensor]) -> Step:
    """The same step, replayed; the step as it is where CUDA cannot capture it.

    `fixed` are read, and written, where they lie; `others` are copied to where the graph reads them. What
    it gives lies in the same place each time, so it has to be used before the next step.
    """
    given = [tensor.clone() for tensor in others]
    before = [tensor.clone() for tensor in fixed]
    try:
        with torch.no_grad():
            graph, made = _capture(lambda: step(*fixed, *given))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return step
    finally:
        with torch.no_grad():  # the passes before a capture move statistics on
            for tensor, value in zip(fixed, before, strict=True):
                tensor.copy_(value)

    def replay(*tensors: Tensor) -> Sequence[Tensor]:
        for place, tensor in zip(given, tensors[len(fixed) :], strict=True):
            place.copy_(tensor)
        graph.replay()
        return made

    return replay


def _capture(step: Callable[[], Sequence[Tensor]]) -> tuple[Any, Sequence[Tensor]]:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = step()
    return graph, made
