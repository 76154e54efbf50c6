"""Order policies: WHICH examples at which step."""

from bygones.catalogue import Catalogue
from bygones.orders.base import AbstractOrder
from bygones.orders.curriculum import Curriculum
from bygones.orders.reshuffle import Reshuffle
from bygones.orders.sequential import Sequential
from bygones.orders.shuffle_once import ShuffleOnce
from bygones.orders.with_replacement import WithReplacement

ORDERS: Catalogue[type[AbstractOrder]] = Catalogue(
    "order policy",
    {
        "reshuffle": Reshuffle,
        "shuffle-once": ShuffleOnce,
        "with-replacement": WithReplacement,
        "sequential": Sequential,
        "curriculum": Curriculum,
    },
)

__all__ = [
    "ORDERS",
    "AbstractOrder",
    "Reshuffle",
    "ShuffleOnce",
    "WithReplacement",
    "Sequential",
    "Curriculum",
]
