"""Input validation: what is given to the public constructors, checked where it is given.

Each function returns the value, or raises `DesignError` with a sentence: what it is, what was expected, what
was found. Numpy's numbers become Python's, since digests and JSON do not treat them alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from operator import index
from typing import Any, TypeVar, cast

import numpy as np

from bygones.core.errors import DesignError
from bygones.core.text import show

Kind = TypeVar("Kind")

_MOST_ITEMS = 1_000_000
_MOST_LETTERS = 200
_LARGEST = 2**63 - 1


def refuse(what: str, expected: str, found: Any) -> DesignError:
    """Return the error for a value of the wrong kind.

    >>> print(refuse("a horizon", "a whole number", "x"))
    a horizon must be a whole number; got 'x'.
    """
    said = show(found, most=80)
    said = said.encode("ascii", "backslashreplace").decode() if not _is_text(said) else said
    return DesignError(f"{what} must be {expected}; got {said}.")


def require_integer(value: Any, what: str) -> int:
    """Return a whole number of at most 64 bits as Python's int.

    >>> require_integer(np.int64(3), "fork_at")
    3
    """
    try:
        number = index(value)
    except Exception:  # of an object of the user's
        raise refuse(what, "a whole number", value) from None
    if isinstance(value, bool | np.bool_) or not -_LARGEST <= number <= _LARGEST:
        raise refuse(what, "a whole number of at most 64 bits", value)
    return number


def require_number(value: Any, what: str) -> float | int:
    """Return a finite real number: Python's own as it is, numpy's as Python's."""
    if isinstance(value, np.generic):
        value = cast(Any, value).item()
    try:
        finite = isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        finite = False
    if isinstance(value, bool) or not finite:
        raise refuse(what, "a finite number", value)
    return value


def require_text(value: Any, what: str, *, empty: bool = False, most: int = _MOST_LETTERS) -> str:
    """Return a text of one line that can be written anywhere: no control characters, no lone surrogates."""
    if not isinstance(value, str):
        raise refuse(what, "a text", value)
    if not _is_text(value) or any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise refuse(what, "a text of one line that can be written in UTF-8", value)
    if len(value) > most:
        raise refuse(what, f"a text of at most {most} letters", value)
    if not value.strip() and not empty:
        raise refuse(what, "a text that is not blank", value)
    return value


def require_instance(value: Any, kind: type[Kind], what: str, example: str) -> Kind:
    """Return an instance of a class; a class in its place is pointed out, since it is the usual slip.

    >>> require_instance("x", int, "a count", "3")
    Traceback (most recent call last):
    bygones.core.errors.DesignError: a count must be an int, like 3; got 'x'.
    """
    if isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
    expected = f"{article} {kind.__name__}, like {example}"
    if isinstance(value, type) and issubclass(value, kind):
        name = value.__name__
        raise DesignError(
            f"{what} must be {expected}; got the class {name} itself. Call it: {name}(…)."
        )
    raise refuse(what, expected, value)


def require_items(
    values: Any,
    what: str,
    item: Callable[[Any], Kind],
    example: str,
    *,
    most: int = _MOST_ITEMS,
) -> tuple[Kind, ...]:
    """Return several values as a tuple, each checked by `item`. A text, or a single value, is not several."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise refuse(what, f"several values, like {example}", values)
    try:
        given = tuple(islice(cast(Iterable[Any], values), most + 1))
    except Exception as error:  # of an object of the user's
        raise refuse(what, f"several values, like {example}", values) from error
    if len(given) > most:
        raise DesignError(f"{what} must be at most {most:,} values; got more.")
    return tuple(item(value) for value in given)


def require_mapping(value: Any, what: str, example: str) -> Mapping[str, Any]:
    """Return a mapping whose keys are texts."""
    if not isinstance(value, Mapping):
        raise refuse(what, f"a dict, like {example}", value)
    mapping = cast("Mapping[Any, Any]", value)
    for key in mapping:
        require_text(key, f"a name in {what}")
    return mapping


def check_fields(value: Any) -> None:
    """Check those fields of a frozen dataclass that are declared as plain numbers or texts.

    Called in `__post_init__`: a subclass of the user's is checked too, by what it declares.
    """
    for field in dataclasses.fields(value):
        declared = (
            field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        )
        check = _BY_DECLARATION.get(declared)
        if check is not None:
            what = f"{type(value).__name__}({field.name}=…)"
            object.__setattr__(value, field.name, check(getattr(value, field.name), what))


def _check_texts(values: Any, what: str) -> tuple[str, ...]:
    return require_items(
        values, what, lambda one: require_text(one, f"each of {what}"), '("a", "b")'
    )


def _check_flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise refuse(what, "True or False", value)
    return value


_BY_DECLARATION: dict[str, Callable[[Any, str], Any]] = {
    "int": require_integer,
    "float": require_number,
    "bool": _check_flag,
    "str": require_text,
    "tuple[str, ...]": _check_texts,
    "Mapping[str, Leaf]": lambda value, what: require_mapping(value, what, '{"name": 0.5}'),
    "Mapping[str, Any]": lambda value, what: require_mapping(value, what, '{"name": 0.5}'),
}


def _is_text(value: str) -> bool:
    """Return whether a text can be written in UTF-8: one from a broken file name may hold lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
