"""Doctests import every module; those of optional packages that are not installed are left out."""

from importlib.util import find_spec

_DOORS = {"huggingface": "transformers", "lightning": "lightning"}

collect_ignore = [
    f"src/bygones/trainers/{door}.py"
    for door, package in _DOORS.items()
    if find_spec(package) is None
]
