"""Text helpers: write counts, lists, values and byte sizes in sentences; plain values for JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast


def format_count(number: int, noun: str, plural: str = "", *, separator: str = "") -> str:
    """Write a number with its noun; `separator` goes between thousands (",").

    >>> format_count(1, "seed"), format_count(3, "seed"), format_count(2, "study", "studies")
    ('1 seed', '3 seeds', '2 studies')
    >>> format_count(12_000, "entry", "entries", separator=",")
    '12,000 entries'
    """
    return f"{number:{separator}} {noun if number == 1 else plural or noun + 's'}"


def join_names(names: Iterable[object], limit: int | None = None) -> str:
    """Join names by commas; of more than `limit`, the first ones and how many are left.

    >>> join_names(["weights", "order"]), join_names([1, 2, 3, 4], limit=2)
    ('weights, order', '1, 2 and 2 more')
    """
    words = [str(name) for name in names]
    if limit is None or len(words) <= limit:
        return ", ".join(words)
    return f"{', '.join(words[:limit])} and {len(words) - limit} more"


def capitalize(phrase: str) -> str:
    """Begin a phrase with a capital and leave the rest alone (`str.capitalize` lowers it).

    >>> capitalize("resetting BatchNorm")
    'Resetting BatchNorm'
    """
    return phrase[:1].upper() + phrase[1:]


def format_bytes(count: int) -> str:
    """Write a number of bytes with three significant digits; units are powers of 1000.

    >>> format_bytes(16), format_bytes(43_560), format_bytes(5_000_000)
    ('16 B', '43.6 kB', '5 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def format_value(value: Any) -> str:
    """Write a nested value as words, without brackets: a setting, or a list of names.

    >>> format_value({"threads": 1, "deterministic": True}), format_value([]), format_value(None)
    ('threads 1, deterministic yes', 'none', 'not recorded')
    """
    match value:
        case Mapping():
            items = cast("Mapping[str, Any]", value).items()
            return ", ".join(f"{key} {format_value(item)}" for key, item in items) or "none"
        case list() | tuple():
            return ", ".join(map(format_value, cast("list[Any]", value))) or "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return "not recorded" if value is None else str(value)


def describe_error(error: BaseException, where: str = "") -> str:
    """Say what code of the user's did, and where: which exception it raised, or that it left Python.

    >>> describe_error(ValueError("no data"), "at step 3"), describe_error(SystemExit(3))
    ('raised ValueError at step 3: no data', 'called sys.exit(3)')
    """
    where = where and f" {where}"
    if isinstance(error, SystemExit):
        code = "" if error.code is None else f"{error.code!r:.60}"
        return f"called sys.exit({code}){where}"
    try:
        said = " ".join(str(error).split())
    except Exception:  # an exception of the user's
        said = "(it cannot say what)"
    return f"raised {type(error).__name__}{where}: {said}".removesuffix(".").removesuffix(": ")


def show(value: Any, most: int = 60) -> str:
    """Return the beginning of a value's `repr`; its type, if it is an object that raises when it is shown.

    >>> show("some text"), show("x" * 99, most=5)
    ("'some text'", "'xxxx…")
    """
    try:
        said = repr(value)
    except Exception:  # an object of the user's
        said = f"a {type(value).__name__}"
    return f"{said[:most]}{'…' if len(said) > most else ''}"


def to_plain(value: Any) -> Any:
    """Convert a nested value to what JSON can hold: finite numbers, None, lists and dicts.

    Numpy's numbers become Python's, tuples become lists, and a float that is not finite becomes None.

    >>> to_plain({"low": float("nan"), "steps": (1, 2)})
    {'low': None, 'steps': [1, 2]}
    """
    numpy = sys.modules.get("numpy")  # where it was not imported, nothing is of it
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    match value:
        case Mapping():
            items = cast("Mapping[str, Any]", value).items()
            return {name: to_plain(part) for name, part in items}
        case list() | tuple():
            return [to_plain(part) for part in cast("list[Any]", value)]
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value
