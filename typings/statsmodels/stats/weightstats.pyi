from numpy.typing import ArrayLike

class DescrStatsW:
    def __init__(self, data: ArrayLike) -> None: ...

    # The larger p-value, then t, p and degrees of freedom of the lower test and of the upper.
    def ttost_mean(
        self, low: float, upp: float
    ) -> tuple[float, tuple[float, float, float], tuple[float, float, float]]: ...
