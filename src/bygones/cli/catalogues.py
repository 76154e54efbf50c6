"""Catalogues by the name that `bygones list` takes."""

from typing import Any

from bygones.analysis.estimators import ESTIMATORS
from bygones.analysis.metrics import METRICS
from bygones.core.catalogue import Catalogue
from bygones.dynamics import QUANTITIES
from bygones.publish.report.sections import SECTIONS
from bygones.study.executors import EXECUTORS
from bygones.training.interventions import INTERVENTIONS
from bygones.training.orders import ORDERS
from bygones.training.probes import PROBES
from bygones.training.sources import SOURCES
from bygones.zoo.regimes import REGIMES
from bygones.zoo.worlds import WORLDS

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
        "quantities": QUANTITIES,
        "regimes": REGIMES,
        "worlds": WORLDS,
        "sections": SECTIONS,
    },
)
