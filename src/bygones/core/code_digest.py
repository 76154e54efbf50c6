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
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.util import resolve_name
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from bygones.core.digest import digest
from bygones.core.values import Digest

TRAINING = (  # what can change a bit of what is trained or observed
    "training/**/*.py",
    "study/segment.py",
    "study/snapshot_bytes.py",
    "core/digest.py",
    "core/keyed_rng.py",
    "core/values.py",
)
SCRIPTS = ("attach/**/*.py", "scripts/**/*.py")  # what a script's run goes through besides


def code_digest(function: Any) -> Digest:
    """Digest of the source of a function and of everything in its own package that it names.

    >>> code_digest(code_digest) == code_digest(code_digest)
    True
    """
    return digest(code_parts(function))


def code_parts(function: Any) -> dict[str, str]:
    """What the digest is of: pieces of source by name, and the `version of` each package used."""
    seen: dict[str, str] = {}
    _visit(function, sys.modules[function.__module__], seen)
    return seen


def third_party_digest(kind: type) -> Digest:
    """The code digest of a member that somebody else wrote; empty for bygones' own (see the contract)."""
    return "" if kind.__module__.startswith("bygones.") else code_digest(kind)


@cache
def package_digest(files: tuple[str, ...] = TRAINING) -> Digest:
    """Digest of bygones' own code, as far as it can change a bit of what is trained or observed.

    `files`: patterns of files of the package, TRAINING or SCRIPTS.
    """
    package = Path(__file__).parents[1]
    paths = [path for pattern in files for path in sorted(package.glob(pattern))]
    return digest(
        {path.relative_to(package).as_posix(): _normalised(path.read_text()) for path in paths}
    )


def source_digest(path: Path) -> Digest:
    """Digest of a file of Python code, without its comments, docstrings and layout."""
    return digest(_normalised(path.read_text()))


def _visit(thing: Any, home: ModuleType, seen: dict[str, str]) -> None:
    """Notes the source of a module, function or class of the recipe's own, and of what it names."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if isinstance(thing, ModuleType):
        if not _belongs(thing, home):
            _note_version(thing, seen)
        elif _label(thing.__name__, thing) not in seen:
            seen[_label(thing.__name__, thing)] = _normalised(inspect.getsource(thing))
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
    for name in _names(seen[label]):
        _visit_name(name, module, home, seen)


def _visit_name(name: str, module: ModuleType, home: ModuleType, seen: dict[str, str]) -> None:
    """Notes what a global name of a module stands for: code, a number, or else how it is written there."""
    if name not in vars(module):
        return
    value = vars(module)[name]
    label = _label(f"{module.__name__}.{name}", module)
    if isinstance(value, _PLAIN):
        seen[f"{label} ="] = repr(value)
    elif isinstance(value, ModuleType) or _is_definition(value):
        _visit(value, home, seen)
    elif f"{label} =" not in seen:
        # A container may have been filled since, and its text may depend on the process; what is
        # written in the file does not.
        seen[f"{label} ="] = ""
        for statement in _assignments(module, name):
            if isinstance(statement, ast.ImportFrom):
                _visit_import(statement, name, module, home, seen)
            else:
                seen[f"{label} ="] += ast.unparse(statement)
                for inner in _names(ast.unparse(statement)):
                    _visit_name(inner, module, home, seen)


def _visit_import(
    statement: ast.ImportFrom, name: str, module: ModuleType, home: ModuleType, seen: dict[str, str]
) -> None:
    """Follows `from there import this as name`."""
    there = "." * statement.level + (statement.module or "")
    package = getattr(module, "__package__", None) or ""
    origin = sys.modules.get(resolve_name(there, package) if statement.level else there)
    original = next(a.name for a in statement.names if name in (a.name, a.asname))
    if origin is not None and _belongs(origin, home):
        _visit_name(original, origin, home, seen)
    elif origin is not None:
        _note_version(origin, seen)


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _is_definition(value: Any) -> bool:
    """Whether the value is a `def` or a `class` at the top of a module, whatever decorates it."""
    inner = inspect.unwrap(value) if callable(value) else value
    return isinstance(inner, FunctionType | type) and "<" not in inner.__qualname__


def _assignments(module: ModuleType, name: str) -> Iterator[ast.stmt]:
    """The statements outside functions that give a name of a module its value."""
    try:
        pending: list[ast.AST] = [ast.parse(inspect.getsource(module))]
    except (OSError, TypeError):
        return
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if name in named:
                yield node
        elif isinstance(node, ast.ImportFrom):
            if any(name in (alias.asname or alias.name,) for alias in node.names):
                yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            pending.extend(ast.iter_child_nodes(node))


def _names(source: str) -> list[str]:
    """Names that a piece of source uses: in its body, defaults, decorators and bases."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


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
def installed_packages() -> Mapping[str, list[str]]:
    """The installed distributions by the packages that they bring: a look at every one of them."""
    return metadata.packages_distributions()


@cache
def _version(package: str) -> str:
    distributions = installed_packages().get(package, [package])
    try:
        return metadata.version(distributions[0])
    except metadata.PackageNotFoundError:
        return "unknown"
