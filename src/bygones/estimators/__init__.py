"""From one number a seed pair to an estimate with its interval. numpy and scipy only."""

from collections.abc import Callable

from bygones.catalogue import Catalogue
from bygones.estimators.base import Estimate
from bygones.estimators.bootstrap_bca import bootstrap_bca
from bygones.estimators.jackknife import jackknife, mean_over_pairs
from bygones.estimators.paired_t import paired_t

Estimator = Callable[..., Estimate]

ESTIMATORS: Catalogue[Estimator] = Catalogue(
    "estimator",
    {"paired_t": paired_t, "bootstrap_bca": bootstrap_bca, "jackknife": jackknife},
)

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Estimator",
    "paired_t",
    "bootstrap_bca",
    "jackknife",
    "mean_over_pairs",
]
