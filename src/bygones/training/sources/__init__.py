"""Memory sources: the parts of a run's state that cross the boundary between two steps."""

from bygones.core.catalogue import Catalogue
from bygones.core.errors import RecipeError
from bygones.training.recipe import Parts
from bygones.training.sources.averages import Averages
from bygones.training.sources.base import AbstractSource
from bygones.training.sources.batchnorm import BatchNorm
from bygones.training.sources.buffers import Buffers
from bygones.training.sources.gradients import Gradients
from bygones.training.sources.moments import Moments
from bygones.training.sources.named import Named
from bygones.training.sources.order import Order
from bygones.training.sources.scheduler import Scheduler
from bygones.training.sources.streams import RandomStreams
from bygones.training.sources.weights import Weights

SOURCES: Catalogue[type[AbstractSource]] = Catalogue(
    "memory source",
    {
        "weights": Weights,
        "moments": Moments,
        "scheduler": Scheduler,
        "gradients": Gradients,
        "batchnorm": BatchNorm,
        "averages": Averages,
        "buffers": Buffers,
        "order": Order,
        "streams": RandomStreams,
        "(yours)": Named,
    },
)


def find_sources(parts: Parts) -> Catalogue[AbstractSource]:
    """Find the memory sources of a run, by name: the built-in ones, then the members of `Parts.others`.

    Raises `RecipeError` if a member of `others` has the name of a built-in source.
    """
    found = [source for kind in SOURCES.values() if (source := kind.find(parts)) is not None]
    named = Named.find_all(parts)
    for source in named:
        if source.name in SOURCES:
            raise RecipeError(
                f"others['{source.name}'] has the name of a built-in source; give it another name."
            )
    return Catalogue("memory source", {source.name: source for source in [*found, *named]})


__all__ = [
    "SOURCES",
    "AbstractSource",
    "Weights",
    "Moments",
    "Scheduler",
    "Gradients",
    "BatchNorm",
    "Averages",
    "Buffers",
    "Order",
    "RandomStreams",
    "Named",
    "find_sources",
]
