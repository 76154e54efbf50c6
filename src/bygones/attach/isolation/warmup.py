"""Warm-up: import what a script needs before it is forked."""

from __future__ import annotations

import ast
import gc
import importlib
import sys
from collections.abc import Collection
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from bygones.attach.isolation.fork import run_in_fork, why_not_fork
from bygones.core.code_digest import installed_packages

_WITHOUT_THREADS = {"numpy", "scipy", "sklearn"}  # packages that start no threads when imported


def imported_libraries(before: Collection[str]) -> tuple[str, ...]:
    """Return the modules of installed packages that were imported since `before`, the names at that time."""
    new = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name not in before and "site-packages" in file and not name.startswith("bygones"):
            new.append(name)
    return tuple(new)


def versions(modules: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return name and version of the packages that these modules belong to."""
    brought_by = installed_packages()
    found = {d for name in modules for d in brought_by.get(name.partition(".")[0], ())}
    return tuple(sorted((name, metadata.version(name)) for name in found))


def warm(modules: Collection[str] = ()) -> None:
    """Import `modules`, and the parts of torch that it loads with the first optimizer, before forking.

    Garbage collection is off meanwhile: what is imported stays. Then `gc.freeze()` moves these objects to the
    permanent generation: fewer copy-on-write page faults after fork, faster `gc.get_objects()`.
    """
    gc.disable()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    for name in modules:
        with suppress(Exception):  # a module that cannot be imported alone is left to the script
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.enable()


def early_imports(script: Path) -> tuple[str, ...]:
    """Return what a script imports in its first lines, of the packages that are known to start no threads.

    They may be imported before it is known what else the script imports.
    """
    try:
        statements = ast.parse(script.read_bytes()).body
        beside = {path.stem for path in script.parent.iterdir()}  # modules of its own come first
    except (OSError, SyntaxError, ValueError):  # the script's own run says what is wrong
        return ()
    names = []
    for statement in statements:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            names.append(statement.module or "")
    return tuple(n for n in names if n.partition(".")[0] in _WITHOUT_THREADS - beside)


def warm_for(libraries: tuple[str, ...], *, known_to_fork: bool = False) -> bool:
    """Import the script's libraries here, unless one of them starts threads, which would forbid forking.

    This is tried in a fork first, unless a run that imported them is known to have kept no threads. Returns
    whether they were imported.
    """
    harmless = known_to_fork or (
        run_in_fork(lambda: (warm(libraries), why_not_fork())[1]) is None if libraries else True
    )
    if harmless:
        warm(libraries)
    return harmless
