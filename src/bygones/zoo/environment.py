"""Reinforcement-learning environments whose whole state can be captured; gymnasium is imported here alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from bygones.core.errors import RecipeError
from bygones.core.extras import import_extra

# Attributes that describe an environment or draw it on a screen, and decide nothing of what it does next.
_FIXED = ("spec", "render_mode", "screen", "clock", "metadata", "action_space", "observation_space")


class Environment:
    """An environment of gymnasium, without wrappers, whose state is plain values.

    state = every attribute of the environment, the last observation, and the steps of this episode

    Its generator is `generator`, a memory of its own. `name`: as gymnasium registers it. `seed`: of the
    generator. `limit`: steps after which an episode is cut off, which is no end that the environment has
    made: `step` tells the two apart. Raises `RecipeError` if gymnasium is missing, if it has no such
    environment, or if an attribute cannot be captured.
    Towers et al. 2024 (arXiv:2407.17032).
    """

    def __init__(self, name: str, seed: int, limit: int = 500) -> None:
        self.name, self.limit, self.elapsed = name, limit, 0
        self._env = _make(name)
        self.observation = self._begin(seed)
        self.state_dict()  # what cannot be captured is refused now, and not at the first fork

    @property
    def generator(self) -> np.random.Generator:
        """The generator that episodes begin from."""
        return self._env.np_random

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        """Act: returns the next observation, the reward, and whether the episode ended or was cut off.

        After either, `observation` is the first one of a new episode.
        """
        following, reward, ended, _, _ = self._env.step(action)
        following = np.asarray(following, dtype=np.float32)
        self.elapsed += 1
        cut = bool(not ended and self.elapsed >= self.limit)
        self.observation = self._begin() if ended or cut else following
        return following, float(reward), bool(ended), cut

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values; raises `RecipeError` for what is none."""
        attributes = {
            name: self._copy(name, value)
            for name, value in sorted(vars(self._env).items())
            if name not in _FIXED and not name.startswith("_np_random")
        }
        return {
            "attributes": attributes,
            "observation": self.observation.copy(),
            "elapsed": self.elapsed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to a captured state, to the bit."""
        for name, value in state["attributes"].items():
            setattr(self._env, name, copy.deepcopy(value))
        self.observation = np.array(state["observation"])
        self.elapsed = int(state["elapsed"])

    def _begin(self, seed: int | None = None) -> np.ndarray:
        self.elapsed = 0
        return np.asarray(self._env.reset(seed=seed)[0], dtype=np.float32)

    def _copy(self, name: str, value: Any) -> Any:
        if not _is_plain(value):
            raise RecipeError(
                f"the state of the environment {self.name} cannot be captured: its attribute {name} is a "
                f"{type(value).__name__}. Tried: numbers, text, arrays, and lists and dicts of these. Take "
                f"an environment whose state is plain, or write a class with state_dict and "
                f"load_state_dict for it."
            )
        return copy.deepcopy(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _make(name: str) -> Any:
    """Make an environment, without its wrappers; raises `RecipeError` with what to do."""
    gymnasium = import_extra("gymnasium", f"the environment {name}")
    try:
        return gymnasium.make(name).unwrapped
    except gymnasium.error.Error as error:
        raise RecipeError(f"gymnasium cannot make the environment '{name}': {error}") from None
