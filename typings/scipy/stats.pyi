from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

class ConfidenceInterval(NamedTuple):
    low: np.float64
    high: np.float64

class BootstrapResult:
    confidence_interval: ConfidenceInterval

def bootstrap(
    data: Sequence[ArrayLike],
    statistic: Callable[..., Any],
    *,
    n_resamples: int = ...,
    confidence_level: float = ...,
    method: Literal["percentile", "basic", "BCa"] = ...,
    rng: np.random.Generator | int | None = ...,
) -> BootstrapResult: ...
def __getattr__(name: str) -> Any: ...
