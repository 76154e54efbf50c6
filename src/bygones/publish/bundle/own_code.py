"""Own code of a recipe: its file, and what that imports of its package or folder.

Found by reading `import` statements, so nothing is run for it. A module that is imported by a name which is
put together while the program runs is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def own_files(root: Path, home: str) -> list[str]:
    """Return the paths below `root` of `home` and of the files that it needs of its own package or folder."""
    scope = home.split("/")[0] + "/" if "/" in home else ""
    found: set[str] = set()
    pending = [home, *_packages(root, home)]
    while pending:
        name = pending.pop()
        if name in found or not name.startswith(scope):
            continue
        found.add(name)
        for module in _imported(root / name, name):
            pending += _files(root, module)
    return sorted(found)


def _imported(path: Path, name: str) -> Iterator[str]:
    """Return the names of modules that a file may import; some are functions, which have no file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = name.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            there = ".".join([*above, *([node.module] if node.module else [])])
            yield there
            yield from (f"{there}.{alias.name}" for alias in node.names)


def _files(root: Path, module: str) -> Iterator[str]:
    """Return the file of a module below `root`, and those of the packages around it."""
    parts = [part for part in module.split(".") if part]
    for name in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
        if parts and (root / name).is_file():
            yield name
            yield from _packages(root, name)


def _packages(root: Path, name: str) -> Iterator[str]:
    folders = name.split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        package = "/".join([*folders[:depth], "__init__.py"])
        if (root / package).is_file():
            yield package
