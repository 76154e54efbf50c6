"""What kind of memory it is: how long it lasts."""

from bygones.dynamics.lifetime import half_life

__all__ = ["half_life"]
