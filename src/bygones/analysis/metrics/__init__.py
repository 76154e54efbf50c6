"""Distances between two functions and scores of one, on arrays. numpy and scipy only."""

from bygones.analysis.metrics.accuracy import ACCURACY
from bygones.analysis.metrics.base import Metric
from bygones.analysis.metrics.brier import BRIER
from bygones.analysis.metrics.cka import CKA
from bygones.analysis.metrics.disagreement import DISAGREEMENT
from bygones.analysis.metrics.ece import ECE
from bygones.analysis.metrics.ece_mass import ECE_MASS
from bygones.analysis.metrics.hellinger import HELLINGER
from bygones.analysis.metrics.js import JS
from bygones.analysis.metrics.kl import KL
from bygones.analysis.metrics.logit_rms import LOGIT_RMS
from bygones.analysis.metrics.nll import NLL
from bygones.analysis.metrics.procrustes import PROCRUSTES
from bygones.analysis.metrics.rms import RMS
from bygones.analysis.metrics.rsa import RSA
from bygones.analysis.metrics.tv import TV
from bygones.core.catalogue import Catalogue

DISTANCES: Catalogue[Metric] = Catalogue(
    "distance",
    {
        metric.name: metric
        for metric in (
            *(TV, JS, HELLINGER, KL, DISAGREEMENT, LOGIT_RMS),  # of predictions
            RMS,  # of plain values
            *(CKA, PROCRUSTES, RSA),  # of representations: values (N, D) of a layer
        )
    },
)
SCORES: Catalogue[Metric] = Catalogue(
    "score",
    {metric.name: metric for metric in (ACCURACY, NLL, BRIER, ECE, ECE_MASS)},
)
METRICS: Catalogue[Metric] = Catalogue("metric", {**DISTANCES, **SCORES})

__all__ = ["DISTANCES", "SCORES", "METRICS", "Metric"]
