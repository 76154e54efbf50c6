"""Parse command-line values: names of studies and recipes, seeds, steps, lanes, margins."""

from __future__ import annotations

import ast
import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bygones.core.catalogue import unknown_name
from bygones.core.errors import BygonesError, DesignError, RecipeError
from bygones.core.importing import load_object
from bygones.core.text import describe_error
from bygones.study.design import Study
from bygones.training.lanes.lane_width import Width
from bygones.training.recipe import Recipe
from bygones.zoo.regimes import REGIMES


def load_study(text: str) -> Study:
    """Load a study by its name, file or import path.

    `text`: `digits` (a built-in regime), `study.py` (whose function is called `study`),
    `study.py:function` or `package.module:function`. Raises `DesignError` if there is none.
    """
    if text in REGIMES:
        return REGIMES[text]()
    place, colon, name = text.partition(":")
    if colon and not name:
        raise DesignError(
            f"'{text}' ends with a colon: expected a name after it, like {place}:study, or no colon."
        )
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise DesignError(
                f"there is no file '{place}'. Expected a Python file with a function study()."
            )
        if not name:
            _refuse_training_script(place)
        source = f"{Path(place).resolve()}:{name or 'study'}"
    elif colon:
        source = text
    else:
        raise unknown_name("regime", text, REGIMES)
    return _call_study(load_object(source), text)


def load_recipe(text: str) -> Recipe:
    """Load a recipe by its address, or the recipe of a study.

    `text`: `file.py:recipe` or `package.module:recipe`, a function of a seed; or what `load_study` takes.
    """
    place, colon, name = text.partition(":")
    if colon and text not in REGIMES:
        source = f"{Path(place).resolve()}:{name}" if place.endswith(".py") else text
        if _takes_a_seed(load_object(source)):
            return Recipe.of(source)
    return load_study(text).recipe


def _refuse_training_script(path: str) -> None:
    """Raise `DesignError` for a file that binds no name `study`, before importing it would train."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError):
        return  # the import reports it
    names: set[str | None] = set()
    for node in ast.walk(tree):
        names |= {getattr(node, "name", None), getattr(node, "asname", None)}
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    if not names & {"study", "*"}:
        raise DesignError(
            f"{path} defines no study(). If it is a training script, put `--` before it: -- {path}"
        )


def _takes_a_seed(function: Any) -> bool:
    if not callable(function):
        return False
    parameters = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def _call_study(function: Any, text: str) -> Study:
    if isinstance(function, Study):
        return function
    try:
        study = function()
    except BygonesError:
        raise
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{text} {describe_error(error)}.") from error
    if not isinstance(study, Study):
        raise DesignError(
            f"{text} must return a bygones.Study; it returned a {type(study).__name__}."
        )
    return study


def split_words(text: str, option: str) -> list[str]:
    """Split the words of an option as a shell would. Raises `DesignError` for a quote that is not closed.

    >>> split_words("--resume 'last one.pt'", "--resume")
    ['--resume', 'last one.pt']
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise DesignError(
            f"{option} {text!r} cannot be split into words: {str(error).lower()}. Close the quotation."
        ) from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds: numbers and ranges, both ends included.

    >>> parse_seeds("0-3,10")
    (0, 1, 2, 3, 10)
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise DesignError(
                f"invalid seeds '{text}': expected numbers and ranges, like 0-31 or 0-3,10."
            )
        stretch = range(int(first), int(last or first) + 1)
        if not stretch:
            raise DesignError(
                f"invalid seeds '{text}': the range {part.strip()} is empty. Write its smaller end first."
            )
        seeds += stretch
    return tuple(seeds)


def parse_steps(text: str) -> tuple[int, ...]:
    """Parse steps.

    >>> parse_steps("0,1,10")
    (0, 1, 10)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_is_number(part) for part in parts):
        raise DesignError(
            f"invalid steps '{text}': expected numbers with commas between, like 0,1,10,100."
        )
    return tuple(int(part) for part in parts)


def parse_lanes(text: str) -> Width:
    """Parse how many seeds to train in one batched step.

    >>> parse_lanes("auto"), parse_lanes("16")
    ('auto', 16)
    """
    if text == "auto":
        return "auto"
    if not _is_number(text) or int(text) < 1:
        raise DesignError(f"invalid number of lanes '{text}': expected auto, or a number from 1.")
    return int(text)


def parse_margins(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Parse equivalence margins by metric.

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
                f"invalid margin '{text}': expected METRIC=SIZE, like accuracy=0.005."
            ) from None
    return tuple(margins)


def parse_variables(texts: Sequence[str]) -> dict[str, str]:
    """Parse environment variables by name.

    >>> parse_variables(["OMP_NUM_THREADS=2"])
    {'OMP_NUM_THREADS': '2'}
    """
    found = {}
    for text in texts:
        name, is_given, value = text.partition("=")
        if not name or not is_given:
            raise DesignError(
                f"invalid variable '{text}': expected NAME=VALUE, like OMP_NUM_THREADS=2."
            )
        found[name] = value
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
