"""Worlds: runs whose treatment effects are known in closed form."""

from bygones.zoo.worlds import heavy_ball

__all__ = ["heavy_ball"]
