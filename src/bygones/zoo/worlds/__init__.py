"""Worlds: runs whose treatment effects are known in closed form."""

from bygones.core.catalogue import Catalogue
from bygones.training.recipe import RecipeFunction
from bygones.zoo.worlds import averaged, cliffwalk, heavy_ball, scalar_maps

WORLDS: Catalogue[RecipeFunction] = Catalogue(
    "world",
    {
        "heavy-ball": heavy_ball.recipe,
        "averaged": averaged.recipe,
        "cliffwalk": cliffwalk.recipe,
        "scalar-maps": scalar_maps.recipe,
    },
)

__all__ = ["WORLDS", "averaged", "cliffwalk", "heavy_ball", "scalar_maps"]
