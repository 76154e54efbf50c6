"""Order policies (samplers): which examples are in the batch of each step."""

from bygones.core.catalogue import Catalogue
from bygones.training.orders.base import AbstractOrder
from bygones.training.orders.blocked import Blocked
from bygones.training.orders.curriculum import Curriculum
from bygones.training.orders.grab import GraB
from bygones.training.orders.reshuffle import Reshuffle
from bygones.training.orders.self_paced import SelfPaced
from bygones.training.orders.sequential import Sequential
from bygones.training.orders.shuffle_once import ShuffleOnce
from bygones.training.orders.with_replacement import WithReplacement

ORDERS: Catalogue[type[AbstractOrder]] = Catalogue(
    "order policy",
    {
        "reshuffle": Reshuffle,
        "shuffle-once": ShuffleOnce,
        "with-replacement": WithReplacement,
        "sequential": Sequential,
        "curriculum": Curriculum,
        "blocked": Blocked,
        "self-paced": SelfPaced,
        "grab": GraB,
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
    "Blocked",
    "SelfPaced",
    "GraB",
]
