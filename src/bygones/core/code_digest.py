"""Code digests: a hash of a function's source and of the source of everything that it names.

Comments, docstrings and layout do not change the digest; a changed constant does. Names are followed
within the function's own package or folder. Code of other packages enters as the version of the
package. Not covered: code that is reached only through attributes of objects made at run time, and
data read from files (the digest of a run's starting state covers both).
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.util import resolve_name
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from bygones.core.digest import digest
from bygones.core.values import Digest

TRAINING = (  # files that can change a bit of a trained or observed value
    "training/**/*.py",
    "study/segment.py",
    "study/snapshot_bytes.py",
    "core/digest.py",
    "core/keyed_rng.py",
    "core/values.py",
)
SCRIPTS = ("attach/**/*.py", "scripts/**/*.py")  # further files that take part in a script's run


def code_digest(function: Any) -> Digest:
    """Hash the source of a function and of everything in its own package that it names.

    >>> code_digest(code_digest) == code_digest(code_digest)
    True
    """
    return digest(code_parts(function))


def code_parts(function: Any) -> dict[str, str]:
    """Collect what `code_digest` hashes: sources by name, and `version of <package>` of other packages."""
    seen: dict[str, str] = {}
    _visit(function, sys.modules[function.__module__], seen)
    return seen


def third_party_digest(kind: type) -> Digest:
    """Hash the code of a class from another package; return "" for one of bygones.

    The code of bygones itself is part of the numeric contract, by `package_digest`.
    """
    return "" if kind.__module__.startswith("bygones.") else code_digest(kind)


@cache
def package_digest(files: tuple[str, ...] = TRAINING) -> Digest:
    """Hash those of bygones' own files that can change a bit of a trained or observed value.

    `files`: glob patterns relative to the package, `TRAINING` or `SCRIPTS`.
    """
    package = Path(__file__).parents[1]
    paths = [path for pattern in files for path in sorted(package.glob(pattern))]
    return digest(
        {
            path.relative_to(package).as_posix(): _normalize_source(read_source(path))
            for path in paths
        }
    )


def source_digest(path: Path) -> Digest:
    """Hash a file of Python code, without its comments, docstrings and layout."""
    return digest(_normalize_source(read_source(path)))


def read_source(path: Path) -> str:
    """Read a file of Python code, in UTF-8 or in the encoding that its first lines declare."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return path.read_bytes().decode(errors="replace")


def _visit(thing: Any, home: ModuleType, seen: dict[str, str]) -> None:
    """Add to `seen` the source of a module, function or class, and of everything that it names.

    `home`: the module where the walk began. Of what lies outside its package or folder, only the
    package's version is added.
    """
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if isinstance(thing, ModuleType):
        if not _is_local(thing, home):
            _add_version(thing, seen)
        elif _stable_name(thing.__name__, thing) not in seen:
            seen[_stable_name(thing.__name__, thing)] = _normalize_source(inspect.getsource(thing))
        return
    if not isinstance(thing, FunctionType | type):
        return
    module = sys.modules.get(thing.__module__)
    if module is None or not _is_local(module, home):
        if module is not None:
            _add_version(module, seen)
        return
    label = _stable_name(f"{thing.__module__}.{thing.__qualname__}", module)
    if label in seen:
        return
    try:
        seen[label] = _normalize_source(inspect.getsource(thing))
    except (OSError, TypeError):
        seen[label] = "no source"
    for name in _list_names(seen[label]):
        _visit_name(name, module, home, seen)


def _visit_name(name: str, module: ModuleType, home: ModuleType, seen: dict[str, str]) -> None:
    """Add to `seen` what a global name of a module refers to: code, a constant, or its assignments."""
    if name not in vars(module):
        return
    value = vars(module)[name]
    label = _stable_name(f"{module.__name__}.{name}", module)
    if isinstance(value, _PLAIN):
        seen[f"{label} ="] = repr(value)
    elif isinstance(value, ModuleType) or _is_definition(value):
        _visit(value, home, seen)
    elif f"{label} =" not in seen:
        # The value may be a container that was filled since, with a repr that differs between
        # processes. The assignments in the file do not.
        seen[f"{label} ="] = ""
        for statement in _find_assignments(module, name):
            if isinstance(statement, ast.ImportFrom):
                _visit_import(statement, name, module, home, seen)
            else:
                seen[f"{label} ="] += ast.unparse(statement)
                for inner in _list_names(ast.unparse(statement)):
                    _visit_name(inner, module, home, seen)


def _visit_import(
    statement: ast.ImportFrom, name: str, module: ModuleType, home: ModuleType, seen: dict[str, str]
) -> None:
    """Follow `from module import original as name` to the module that defines it."""
    there = "." * statement.level + (statement.module or "")
    package = getattr(module, "__package__", None) or ""
    origin = sys.modules.get(resolve_name(there, package) if statement.level else there)
    original = next(a.name for a in statement.names if name in (a.name, a.asname))
    if origin is not None and _is_local(origin, home):
        _visit_name(original, origin, home, seen)
    elif origin is not None:
        _add_version(origin, seen)


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _is_definition(value: Any) -> bool:
    """Return True for a function or class defined at the top level of a module, decorated or not."""
    inner = inspect.unwrap(value) if callable(value) else value
    return isinstance(inner, FunctionType | type) and "<" not in inner.__qualname__


def _find_assignments(module: ModuleType, name: str) -> Iterator[ast.stmt]:
    """Yield the module-level statements that assign or import a name."""
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


def _list_names(source: str) -> list[str]:
    """List the names that a piece of source uses, in its body, defaults, decorators and bases."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


def _normalize_source(source: str) -> str:
    """Strip comments, docstrings and layout; return source that does not parse on its own unchanged."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            constant = body[0].value
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                # ast.AST declares no `body`; this node has one.
                node.body = body[1:] or [ast.Pass()]  # pyright: ignore[reportAttributeAccessIssue]
    return ast.unparse(tree)


def _is_local(module: ModuleType, home: ModuleType) -> bool:
    """Return True if a module is in the same package as `home`, or a file in or below its folder."""
    if module is home or module.__name__.partition(".")[0] == home.__name__.partition(".")[0]:
        return True
    there, here = getattr(module, "__file__", None), getattr(home, "__file__", None)
    if not there or not here or "site-packages" in str(there):
        return False
    return Path(here).resolve().parent in Path(there).resolve().parents


def _stable_name(name: str, module: ModuleType) -> str:
    """Replace the module's part of a name where it depends on how or from where the file was loaded."""
    home = module.__name__
    if home == "__main__" or home.startswith("bygones_study_"):
        return name.replace(home, "<study>", 1)
    return name


def _add_version(module: ModuleType, seen: dict[str, str]) -> None:
    """Add to `seen` the version of a module's package; the standard library is left out."""
    package = module.__name__.partition(".")[0]
    if package not in sys.stdlib_module_names:
        seen[f"version of {package}"] = _find_version(package)


@cache
def installed_packages() -> Mapping[str, list[str]]:
    """Map each importable package to its installed distributions. Slow: reads all of their metadata."""
    return metadata.packages_distributions()


@cache
def _find_version(package: str) -> str:
    distributions = installed_packages().get(package, [package])
    try:
        return metadata.version(distributions[0])
    except metadata.PackageNotFoundError:
        return "unknown"
