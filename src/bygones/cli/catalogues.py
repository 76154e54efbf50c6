"""Catalogues by the name that `bygones list` takes, and their members' summaries without importing torch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from bygones.core.catalogue import Catalogue
from bygones.core.importing import load_object

_SRC = Path(__file__).parents[2]
CATALOGUES: Catalogue[str] = Catalogue(
    "catalogue",
    {
        "sources": "bygones.training.sources:SOURCES",
        "interventions": "bygones.training.interventions:INTERVENTIONS",
        "orders": "bygones.training.orders:ORDERS",
        "probes": "bygones.training.probes:PROBES",
        "metrics": "bygones.analysis.metrics:METRICS",
        "estimators": "bygones.analysis.estimators:ESTIMATORS",
        "executors": "bygones.study.executors:EXECUTORS",
        "quantities": "bygones.dynamics:QUANTITIES",
        "regimes": "bygones.zoo.regimes:REGIMES",
        "worlds": "bygones.zoo.worlds:WORLDS",
        "sections": "bygones.publish.report.sections:SECTIONS",
    },
)


def load_catalogue(kind: str) -> Catalogue[Any]:
    """Import a catalogue. Raises `UnknownName` for a kind that there is not."""
    return load_object(CATALOGUES[kind])


def summarize(kind: str) -> dict[str, str]:
    """Return the first line of each member's docstring, by name, as `Catalogue.summary` does.

    They are read from the text of the modules, since importing most of them imports torch. A catalogue
    that is not written as a dict of imported names is imported. Raises `UnknownName` for a kind that
    there is not.

    >>> summarize("interventions")["reset"] == load_catalogue("interventions").summary()["reset"]
    True
    """
    module, name = CATALOGUES[kind].split(":")
    tree = _parse(module)
    members = _find_members(tree, name)
    if members is None:
        return load_catalogue(kind).summary()
    homes = _find_imports(tree)
    return {
        member: _first_line(*_find_home(homes, value))  # of the function or class
        for member, value in members.items()
    }


def _parse(module: str) -> ast.Module:
    """Parse the text of a module of bygones. `find_spec` would import the packages above it."""
    path = _SRC.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _find_members(tree: ast.Module, name: str) -> dict[str, ast.expr] | None:
    """Return the values in `NAME: Catalogue[…] = Catalogue("kind", {…})`; None if written otherwise."""
    for statement in tree.body:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=found), value=ast.Call(args=[_, ast.Dict(keys, values)])
            ) if found == name and all(isinstance(key, ast.Constant) for key in keys):
                return {
                    ast.literal_eval(key): v for key, v in zip(keys, values, strict=True) if key
                }
            case _:
                pass
    return None


def _find_imports(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Return the module and the name there of everything that `from module import name` imports."""
    return {
        alias.asname or alias.name: (statement.module or "", alias.name)
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def _find_home(homes: dict[str, tuple[str, str]], value: ast.expr) -> tuple[str, str]:
    """Return the module and the name of what `name` or `module.name` stands for."""
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        return ".".join(homes[value.value.id]), value.attr
    assert isinstance(value, ast.Name)
    return homes[value.id]


def _first_line(module: str, name: str) -> str:
    for statement in _parse(module).body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)) and statement.name == name:
            return (ast.get_docstring(statement) or "").split("\n")[0]
    return ""
