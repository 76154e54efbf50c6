from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

bdtr: np.ufunc
chdtri: np.ufunc
ndtr: np.ufunc
rel_entr: np.ufunc
stdtr: np.ufunc
stdtrit: np.ufunc

def log_softmax(x: ArrayLike, axis: int | None = None) -> NDArray[np.float64]: ...
def logsumexp(a: ArrayLike, axis: int | None = None) -> NDArray[np.float64] | np.float64: ...
def softmax(x: ArrayLike, axis: int | None = None) -> NDArray[np.float64]: ...
def __getattr__(name: str) -> Any: ...
