"""Distances between two functions and scores of one, on arrays. numpy and scipy only."""

from bygones.catalogue import Catalogue
from bygones.metrics.accuracy import ACCURACY
from bygones.metrics.base import Metric
from bygones.metrics.brier import BRIER
from bygones.metrics.cka import CKA
from bygones.metrics.disagreement import DISAGREEMENT
from bygones.metrics.ece import ECE
from bygones.metrics.ece_mass import ECE_MASS
from bygones.metrics.hellinger import HELLINGER
from bygones.metrics.js import JS
from bygones.metrics.kl import KL
from bygones.metrics.logit_rms import LOGIT_RMS
from bygones.metrics.nll import NLL
from bygones.metrics.procrustes import PROCRUSTES
from bygones.metrics.rms import RMS
from bygones.metrics.rsa import RSA
from bygones.metrics.tv import TV

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
