"""CUDA graphs: capture a recorded step, and replay it by one launch instead of hundreds.

In a small network the GPU is idle between kernel launches. A graph is launched as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Step = Callable[..., Sequence[Tensor]]

_WARM_UP = 3  # passes before a capture, in which libraries allocate workspaces, as torch advises


def capture_graph(step: Step, fixed: Sequence[Tensor], others: Sequence[Tensor]) -> Step:
    """Return a function that replays the step as a CUDA graph; the step itself if capture fails.

    `fixed`: inputs that are read and written in place. `others`: inputs that are copied to the graph's own
    tensors. The outputs are the same tensors each time, so they must be used before the next call.
    """
    inputs = [tensor.clone() for tensor in others]
    before = [tensor.clone() for tensor in fixed]
    try:
        with torch.no_grad():
            graph, outputs = _capture(lambda: step(*fixed, *inputs))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return step
    finally:
        with torch.no_grad():  # the warm-up passes have updated running statistics
            for tensor, value in zip(fixed, before, strict=True):
                tensor.copy_(value)

    def replay(*tensors: Tensor) -> Sequence[Tensor]:
        for place, tensor in zip(inputs, tensors[len(fixed) :], strict=True):
            place.copy_(tensor)
        graph.replay()
        return outputs

    return replay


def _capture(step: Callable[[], Sequence[Tensor]]) -> tuple[Any, Sequence[Tensor]]:
    """Warm up on a side stream, then capture one call; return the graph and its output tensors."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    return graph, outputs
