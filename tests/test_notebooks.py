"""The notebooks run from top to bottom, and a recipe in a cell trains with workers as a file's does."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bygones
from bygones.core.typed_code import digest_of_code, is_typed, pack_typed, unpack_typed

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
MAGIC = re.compile(r"^(?:%%writefile .*\n[\s\S]*|[!%].*)$", re.M)


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_three_notebooks() -> None:
    assert [path.stem[:1] for path in NOTEBOOKS] == ["1", "2", "3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_output_and_names_what_is_there(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
    code = "\n".join(MAGIC.sub("", cell) for cell in code_of(path))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "bygones" or hasattr(bygones, node.attr), node.attr
        if isinstance(node, ast.ImportFrom) and node.module == "bygones":
            assert all(hasattr(bygones, name.name) for name in node.names)


def test_a_function_of_a_cell_goes_to_a_worker_with_its_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = "class Box:\n    size = 3\n\ndef recipe(seed):\n    return Box.size + seed + extra\n\nextra = 4\n"
    here, there = ModuleType("__main__"), ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", here)
    exec(cell, vars(here))
    values: Any = {"box": here.Box()}
    parcel = pack_typed("__main__:recipe", values)
    monkeypatch.setitem(sys.modules, "__main__", there)
    monkeypatch.setattr("bygones.core.typed_code._SENT", {})
    arrived = unpack_typed(parcel)
    assert there.recipe(1) == 8
    assert arrived["box"].size == 3
    assert digest_of_code("__main__:recipe") == parcel[2]
    assert is_typed("__main__:recipe")
    assert not is_typed("study.py:recipe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks run: the third reads what the first has trained."""
    for package in ("nbclient", "ipykernel"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed; the extra dev brings it")
    return tmp_path_factory.mktemp("notebooks")


def run_cells(cells: list[str], folder: Path) -> list[str]:
    """Run cells in a kernel, and return what each has printed or shown as text."""
    made: Any = importlib.import_module("nbformat.v4")
    client: Any = importlib.import_module("nbclient")
    notebook = made.new_notebook(cells=[made.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(folder)}}
    client.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    return [
        "".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)
        for cell in notebook.cells
    ]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
def test_the_notebooks_run_in_their_order(folder: Path) -> None:
    shown = {path.stem[:1]: run_cells(code_of(path), folder) for path in NOTEBOOKS}
    assert any("of another seed" in text or "Result of" in text for text in shown["1"])
    assert any("moved the function by" in text for text in shown["1"])
    assert any("batchnorm" in text for text in shown["2"])
    assert any(text.strip().endswith("0") for text in shown["3"]), "the sham differs nowhere"


EDITED = """
steps = [bygones.plan(study, store).steps_left]
source = recipe
def recipe(seed: int) -> Parts:
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        data=(points[:512], labels[:512]),
        order=Reshuffle(num_examples=512, batch_size=32),
        probe_set=(points[512:], labels[512:]),
    )
edited = Study(recipe, study.arms, fork_at=100, horizons=(1, 10, 40), seeds=range(2), name="edited")
steps.append(bygones.plan(edited, store).steps_left)
again = bygones.measure(edited, store=store, executor=bygones.Processes(2))
steps.append(bygones.plan(edited, store).steps_left)
steps
"""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_an_edited_cell_is_another_recipe_for_workers_too(folder: Path) -> None:
    steps = json.loads(run_cells([*code_of(NOTEBOOKS[0])[:6], EDITED], folder)[-1])
    assert steps[0] == steps[2] == 0
    assert steps[1] > 0
