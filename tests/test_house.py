"""The house's own rules: few rooms, small files, short functions, no private name across files."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "bygones"
MOST_ENTRIES = 15
MOST_LINES_A_FILE = 500
MOST_LINES_A_FUNCTION = 60

FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_package_has_few_rooms() -> None:
    no_code = {"__pycache__", "__init__.pyi", "py.typed"}  # stubs, and the empty mark of PEP 561
    entries = {path.name for path in PACKAGE.iterdir()} - no_code
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_keeps_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert broken_rules(text) == []


def broken_rules(text: str) -> list[str]:
    """The rules that a file breaks, in words."""
    tree = ast.parse(text)
    num_lines = text.count("\n")
    broken = [f"{num_lines} lines"] if num_lines > MOST_LINES_A_FILE else []
    broken += [
        f"{function.name} is {length} lines long"
        for function in functions(tree)
        if (length := num_lines_of_body(function)) > MOST_LINES_A_FUNCTION
    ]
    broken += [f"imports {name}" for name in private_imports(tree)]
    return broken


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_lines_of_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function; of a command, which declares each option in its signature, of its body."""
    annotated = any(
        arg.annotation is not None and "Annotated" in ast.unparse(arg.annotation)
        for arg in arguments(function)
    )
    begin = function.body[0].lineno if annotated else function.lineno
    return (function.end_lineno or begin) - begin + 1


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def private_imports(tree: ast.Module) -> Iterator[str]:
    """Underscored names that are imported from another file of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bygones"):
            for alias in node.names:
                if alias.name.startswith("_"):
                    yield f"{node.module}.{alias.name}"


def test_a_rule_that_is_broken_is_noticed() -> None:
    long_function = "def f():\n" + "    x = 1\n" * MOST_LINES_A_FUNCTION
    assert broken_rules(long_function) == [f"f is {MOST_LINES_A_FUNCTION + 1} lines long"]
    assert broken_rules("from bygones.core.text import _plural\n") == [
        "imports bygones.core.text._plural"
    ]
    assert broken_rules("x = 1\n" * 501) == ["501 lines"]


# ------------------------------------------------------------------ what the docs say of it

ROOT = PACKAGE.parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
ROW = re.compile(r"^\| (\d) \| `(\w+)` \| .+ \| (\w+) \|$", re.MULTILINE)


def test_the_documented_rooms_are_those_of_the_import_contract() -> None:
    documented: dict[int, set[str]] = {}
    for rung, room, _ in ROW.findall((ROOT / "docs" / "architecture.md").read_text()):
        documented.setdefault(int(rung), set()).add(room)
    layers = [set(layer.split(" | ")) for layer in CONTRACTS[0]["layers"] if layer != "__main__"]
    assert [documented[rung] for rung in sorted(documented, reverse=True)] == layers


def test_the_documented_rooms_without_torch_are_those_of_the_import_contract() -> None:
    rows = ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    without = {f"bygones.{room}" for _, room, torch in rows if torch == "never"}
    folders = {"bygones.study.executors", "bygones.training.orders"}
    assert without | folders == set(CONTRACTS[1]["source_modules"])
