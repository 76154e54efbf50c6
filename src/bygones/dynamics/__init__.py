"""Dynamics: quantities that describe the kind of memory, such as its lifetime."""

from bygones.dynamics.lifetime import half_life

__all__ = ["half_life"]
