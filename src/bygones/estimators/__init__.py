"""From one number a seed pair to an estimate with its interval. numpy and scipy only."""

from collections.abc import Callable

from bygones.catalogue import Catalogue
from bygones.estimators.base import Estimate
from bygones.estimators.bootstrap_bca import bootstrap_bca
from bygones.estimators.bootstrap_t import bootstrap_t
from bygones.estimators.confidence_sequence import (
    confidence_sequence,
    half_width_in_spreads,
    half_width_reached,
)
from bygones.estimators.hierarchical import hierarchical
from bygones.estimators.hierarchical_bootstrap import hierarchical_bootstrap
from bygones.estimators.jackknife import jackknife, mean_over_pairs
from bygones.estimators.median import median
from bygones.estimators.paired_t import paired_t
from bygones.estimators.sign_flip import sign_flip
from bygones.estimators.trimmed import trimmed

Estimator = Callable[..., Estimate]

ESTIMATORS: Catalogue[Estimator] = Catalogue(
    "estimator",
    {
        "paired_t": paired_t,
        "bootstrap_bca": bootstrap_bca,
        "bootstrap_t": bootstrap_t,
        "sign_flip": sign_flip,
        "trimmed": trimmed,
        "median": median,
        "hierarchical": hierarchical,
        "hierarchical_bootstrap": hierarchical_bootstrap,
        "confidence_sequence": confidence_sequence,
        "jackknife": jackknife,
    },
)

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Estimator",
    "paired_t",
    "bootstrap_bca",
    "bootstrap_t",
    "sign_flip",
    "trimmed",
    "median",
    "hierarchical",
    "hierarchical_bootstrap",
    "confidence_sequence",
    "half_width_in_spreads",
    "half_width_reached",
    "jackknife",
    "mean_over_pairs",
]
