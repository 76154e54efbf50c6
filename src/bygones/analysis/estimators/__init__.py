"""Estimators: from one number a seed pair to an estimate with its interval. numpy and scipy only."""

from collections.abc import Callable

from bygones.analysis.estimators.base import Estimate, fewest_for_sign_flips
from bygones.analysis.estimators.bootstrap_bca import bootstrap_bca
from bygones.analysis.estimators.bootstrap_t import bootstrap_t
from bygones.analysis.estimators.by_skewness import by_skewness
from bygones.analysis.estimators.confidence_sequence import (
    confidence_sequence,
    half_width_in_spreads,
    half_width_reached,
)
from bygones.analysis.estimators.hierarchical import hierarchical
from bygones.analysis.estimators.hierarchical_bootstrap import hierarchical_bootstrap
from bygones.analysis.estimators.jackknife import (
    jackknife,
    mean_over_pairs,
    means_without_each,
    pair_means_without_each,
)
from bygones.analysis.estimators.median import median
from bygones.analysis.estimators.paired_t import paired_t
from bygones.analysis.estimators.sign_flip import sign_flip
from bygones.analysis.estimators.trimmed import trimmed
from bygones.core.catalogue import Catalogue

Estimator = Callable[..., Estimate]

ESTIMATORS: Catalogue[Estimator] = Catalogue(
    "estimator",
    {
        "by_skewness": by_skewness,
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
    "fewest_for_sign_flips",
    "by_skewness",
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
    "means_without_each",
    "pair_means_without_each",
]
