"""Worlds: runs whose memory is known in closed form."""

from bygones.zoo.worlds import heavy_ball

__all__ = ["heavy_ball"]
