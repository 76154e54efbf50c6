"""Studies and recipes by name, file or import path."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

from bygones.core.catalogue import unknown_name
from bygones.core.errors import BygonesError, DesignError, RecipeError
from bygones.core.importing import load_object
from bygones.core.text import describe_error
from bygones.study.design import Study
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
    if not issubclass(type(study), Study):  # `isinstance` asks an object of the user's what it is
        raise DesignError(
            f"{text} must return a bygones.Study; it returned a {type(study).__name__}."
        )
    return study
