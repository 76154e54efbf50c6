"""From what a person types to a study, and from `0-31` to seeds."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bygones.core.catalogue import unknown_name
from bygones.core.errors import BygonesError, DesignError, RecipeError
from bygones.core.importing import load_object
from bygones.study.design import Study
from bygones.training.lanes.lane_width import Width
from bygones.training.recipe import Recipe
from bygones.zoo.regimes import REGIMES


def load_study(text: str) -> Study:
    """The study that a name, a file or an import path stands for.

    `digits` (a built-in regime), `study.py` or `study.py:function` (a file; the function is called
    `study` unless said otherwise), `package.module:function`.
    """
    if text in REGIMES:
        return REGIMES[text]()
    place, colon, name = text.partition(":")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise DesignError(
                f"there is no file '{place}'. Expected a Python file with a study() in it."
            )
        source = f"{Path(place).resolve()}:{name or 'study'}"
    elif colon:
        source = text
    else:
        raise unknown_name("regime", text, REGIMES)
    return _made(load_object(source), text)


def load_recipe(text: str) -> Recipe:
    """The recipe that a text stands for: the address of a function of a seed, or a study's own.

    `file.py:recipe` and `package.module:recipe` are recipes; whatever `load_study` takes is a study.
    """
    place, colon, name = text.partition(":")
    if colon and text not in REGIMES:
        source = f"{Path(place).resolve()}:{name}" if place.endswith(".py") else text
        if _takes_a_seed(load_object(source)):
            return Recipe.of(source)
    return load_study(text).recipe


def _takes_a_seed(function: Any) -> bool:
    if not callable(function):
        return False
    parameters = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def _made(function: Any, text: str) -> Study:
    if isinstance(function, Study):
        return function
    try:
        study = function()
    except BygonesError:
        raise
    except Exception as error:
        raise RecipeError(f"{text} raised {type(error).__name__}: {error}.") from error
    if not isinstance(study, Study):
        raise DesignError(
            f"{text} must return a bygones.Study; it returned a {type(study).__name__}."
        )
    return study


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from text: single ones and ranges, both ends included.

    >>> parse_seeds("0-3,10")
    (0, 1, 2, 3, 10)
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise DesignError(
                f"'{text}' are no seeds. Expected numbers and ranges, like 0-31 or 0-3,10."
            )
        stretch = range(int(first), int(last or first) + 1)
        if not stretch:
            raise DesignError(
                f"'{part.strip()}' is an empty range of seeds; the smaller end comes first."
            )
        seeds += stretch
    return tuple(seeds)


def parse_steps(text: str) -> tuple[int, ...]:
    """Steps from text.

    >>> parse_steps("0,1,10")
    (0, 1, 10)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_is_number(part) for part in parts):
        raise DesignError(f"'{text}' are no steps. Expected numbers with commas, like 0,1,10,100.")
    return tuple(int(part) for part in parts)


def parse_lanes(text: str) -> Width:
    """How many seeds take a step together, from text.

    >>> parse_lanes("auto"), parse_lanes("16")
    ('auto', 16)
    """
    if text == "auto":
        return "auto"
    if not _is_number(text) or int(text) < 1:
        raise DesignError(f"'{text}' is no number of lanes. Expected auto, or a number from 1.")
    return int(text)


def parse_margins(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Margins by metric from text.

    >>> parse_margins(["accuracy=0.005"])
    (('accuracy', 0.005),)
    """
    margins = []
    for text in texts:
        metric, _, size = text.partition("=")
        try:
            margins.append((metric, float(size)))
        except ValueError:
            raise DesignError(
                f"'{text}' is no margin. Expected METRIC=SIZE, like accuracy=0.005."
            ) from None
    return tuple(margins)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
