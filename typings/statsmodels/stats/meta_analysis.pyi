from typing import Literal

import numpy as np
from numpy.typing import NDArray

class HomogeneityTest:
    pvalue: float

class CombineResults:
    mean_effect_re: float
    sd_eff_w_re: float
    tau2: float
    q: float
    i2: float
    weights_rel_re: NDArray[np.float64]

    # Of the fixed-effect and the random-effects mean, and both again with a scale from the data.
    def conf_int(self, alpha: float = ...) -> tuple[tuple[float, float], ...]: ...
    def test_homogeneity(self) -> HomogeneityTest: ...

def combine_effects(
    effect: NDArray[np.float64],
    variance: NDArray[np.float64],
    method_re: Literal["iterated", "pm", "chi2", "dl"] = ...,
    *,
    use_t: bool = ...,
) -> CombineResults: ...
