"""What code a function is made of, as a digest: its own source and that of what it uses.

Comments, docstrings and layout do not count; a changed constant does. Code is followed through
names, within the function's own package or folder. Code of other packages counts by the version
of the package. What is *not* seen: code reached only through attributes of objects made at run
time, and data read from files (the digest of a run's starting state sees those).
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from bygones.digest import digest
from bygones.values import Digest


def code_digest(function: Any) -> Digest:
    """Digest of the source of a function and of everything in its own package that it names.

    >>> code_digest(code_digest) == code_digest(code_digest)
    True
    """
    seen: dict[str, str] = {}
    home = sys.modules[function.__module__]
    _visit(function, home, seen)
    return digest(seen)


def _visit(thing: Any, home: ModuleType, seen: dict[str, str]) -> None:
    if isinstance(thing, ModuleType):
        if _belongs(thing, home) and thing.__name__ not in seen:
            seen[_label(thing.__name__, thing)] = _normalised(inspect.getsource(thing))
        elif not _belongs(thing, home):
            _note_version(thing, seen)
        return
    if not isinstance(thing, FunctionType | type):
        return
    module = sys.modules.get(thing.__module__)
    if module is None or not _belongs(module, home):
        if module is not None:
            _note_version(module, seen)
        return
    label = _label(f"{thing.__module__}.{thing.__qualname__}", module)
    if label in seen:
        return
    try:
        seen[label] = _normalised(inspect.getsource(thing))
    except (OSError, TypeError):
        seen[label] = "no source"
    for name, value in _named_by(thing, module):
        if isinstance(value, bool | int | float | str | tuple | frozenset | None):
            seen[f"{label}>{name}"] = repr(value)
        else:
            _visit(value, home, seen)


def _named_by(thing: Any, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Global names that a function's or a class's code uses, with what they stand for."""
    functions = [thing] if isinstance(thing, FunctionType) else _methods(thing)
    names = sorted({name for function in functions for name in _names(function.__code__)})
    for name in names:
        if name in vars(module):
            yield name, vars(module)[name]
    for function in functions:
        for index, default in enumerate(function.__defaults__ or ()):
            yield f"{function.__name__}[{index}]", default
    if isinstance(thing, type):
        for base in thing.__bases__:
            yield base.__name__, base


def _methods(cls: type) -> list[FunctionType]:
    members = [getattr(m, "__func__", getattr(m, "fget", m)) for m in vars(cls).values()]
    return [member for member in members if isinstance(member, FunctionType)]


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*(_names(constant) for constant in inner))


def _normalised(source: str) -> str:
    """The source without comments, docstrings and layout; as it is where it does not parse alone."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            constant = body[0].value
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _belongs(module: ModuleType, home: ModuleType) -> bool:
    """Same package as the recipe, or a file under the recipe's own folder."""
    if module is home or module.__name__.partition(".")[0] == home.__name__.partition(".")[0]:
        return True
    there, here = getattr(module, "__file__", None), getattr(home, "__file__", None)
    if not there or not here or "site-packages" in str(there):
        return False
    return Path(here).resolve().parent in Path(there).resolve().parents


def _label(name: str, module: ModuleType) -> str:
    """A name that does not depend on where the file lies or on how it was loaded."""
    home = module.__name__
    if home == "__main__" or home.startswith("bygones_study_"):
        return name.replace(home, "<study>", 1)
    return name


def _note_version(module: ModuleType, seen: dict[str, str]) -> None:
    package = module.__name__.partition(".")[0]
    if package not in sys.stdlib_module_names:
        seen[f"version of {package}"] = _version(package)


@cache
def _version(package: str) -> str:
    distributions = metadata.packages_distributions().get(package, [package])
    try:
        return metadata.version(distributions[0])
    except metadata.PackageNotFoundError:
        return "unknown"
