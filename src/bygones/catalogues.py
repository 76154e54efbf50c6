"""Every catalogue there is, by the word that `bygones list` takes."""

from typing import Any

from bygones.catalogue import Catalogue
from bygones.estimators import ESTIMATORS
from bygones.executors import EXECUTORS
from bygones.interventions import INTERVENTIONS
from bygones.metrics import METRICS
from bygones.orders import ORDERS
from bygones.probes import PROBES
from bygones.regimes import REGIMES
from bygones.sources import SOURCES

CATALOGUES: Catalogue[Catalogue[Any]] = Catalogue(
    "catalogue",
    {
        "sources": SOURCES,
        "interventions": INTERVENTIONS,
        "orders": ORDERS,
        "probes": PROBES,
        "metrics": METRICS,
        "estimators": ESTIMATORS,
        "executors": EXECUTORS,
        "regimes": REGIMES,
    },
)
