"""The digest of a recipe's code: what must change it, and what must not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path

import pytest

from bygones.core.code_digest import code_digest
from bygones.training.recipe import Recipe
from bygones.zoo.worlds import heavy_ball

STUDY = '''
import functools
from helpers import WIDTHS, scaled as rescaled, twice

RATE = 0.1
SETTINGS = {"decay": 0.9}
KINDS = frozenset({"alpha", "beta", "gamma"})
CHOICES = {"first": lambda x: x + 1, "second": rescaled}


def announced(function):
    print_nothing = 1
    return function


@functools.cache
def prepared(size):
    return list(range(size + 2))


def make(factor):
    def inner(x):
        return factor * x
    return inner


step = make(3)


class Base:
    def bias(self):
        return 1


class Model(Base):
    depth = 2

    def forward(self, x):
        return self.depth * x + offset(x)


def offset(x):
    return x + 5


@announced
def recipe(seed, start=RATE, *, stop=RATE):
    """Nothing to see here."""
    # nor here
    def nested(x):
        return x * SETTINGS["decay"] + len(KINDS)

    return Model().forward(seed) + nested(start) + twice(stop) + step(sum(WIDTHS)) + len(
        prepared(3)
    ) + CHOICES["first"](1)
'''
HELPERS = """
FACTOR = 2
WIDTHS = [8, 8]


def twice(x):
    return FACTOR * x


def scaled(x):
    return 4 * x
"""

numbered = count()


@pytest.fixture(autouse=True)
def _no_bytecode(monkeypatch: pytest.MonkeyPatch):
    """Python knows a file that changed by its second and its size: here neither need differ."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def digest_of(folder: Path, study: str = STUDY, helpers: str = HELPERS, use: bool = False) -> str:
    """The code digest of `recipe` in two files, imported afresh; `use` calls it first."""
    folder.mkdir(exist_ok=True)
    (folder / "helpers.py").write_text(helpers)
    path = folder / "study.py"
    path.write_text(study)
    name = f"bygones_study_{next(numbered)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.pop("helpers", None)
    sys.path.insert(0, str(folder))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        if use:
            module.recipe(1)
            module.SETTINGS["filled later"] = object()
        return code_digest(module.recipe)
    finally:
        sys.path.remove(str(folder))
        del sys.modules[name]
        sys.modules.pop("helpers", None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 0.1", "RATE = 0.2"),
        ('{"decay": 0.9}', '{"decay": 0.8}'),
        ('"gamma"', '"delta"'),
        ("lambda x: x + 1", "lambda x: x + 2"),
        ("return x + 5", "return x + 6"),
        ("depth = 2", "depth = 3"),
        ("return 1\n", "return 2\n"),
        ("return factor * x", "return factor + x"),
        ("step = make(3)", "step = make(4)"),
        ("range(size + 2)", "range(size + 3)"),
        ("print_nothing = 1", "print_nothing = 2"),
        ("start=RATE", "start=RATE * 2"),
        ("return x * SETTINGS", "return 2 * x * SETTINGS"),
    ],
)
def test_a_change_of_the_code_changes_the_digest(tmp_path: Path, old: str, new: str):
    assert STUDY.count(old) >= 1
    assert digest_of(tmp_path, STUDY.replace(old, new)) != digest_of(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 3"),
        ("FACTOR * x", "FACTOR + x"),
        ("WIDTHS = [8, 8]", "WIDTHS = [8, 9]"),
        ("return 4 * x", "return 5 * x"),
    ],
)
def test_a_change_in_a_module_of_the_same_folder_changes_it(tmp_path: Path, old: str, new: str):
    assert digest_of(tmp_path, helpers=HELPERS.replace(old, new)) != digest_of(tmp_path)


def test_a_module_of_the_same_folder_that_is_imported_whole_counts_whole(tmp_path: Path):
    study = STUDY.replace("import functools\n", "import functools\nimport helpers\n")
    study = study.replace("twice(stop)", "helpers.twice(stop)")
    assert "helpers.twice" in study
    changed = HELPERS.replace("FACTOR = 2", "FACTOR = 3")
    assert digest_of(tmp_path, study, changed) != digest_of(tmp_path, study)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Nothing to see here.", "Other words."),
        ("    # nor here\n", ""),
        ("RATE = 0.1", "RATE   =  .1  # why not"),
        ("depth = 2\n", "depth = (\n        2\n    )\n"),
        ("\n\ndef offset", "\n\n\n\n\nUNUSED = 7\n\n\ndef offset"),
    ],
)
def test_comments_docstrings_layout_and_what_is_not_used_do_not(tmp_path: Path, old: str, new: str):
    assert old in STUDY
    assert digest_of(tmp_path, STUDY.replace(old, new)) == digest_of(tmp_path)


def test_neither_the_place_of_the_files_nor_using_them_matters(tmp_path: Path):
    assert digest_of(tmp_path / "here") == digest_of(tmp_path / "there")
    assert digest_of(tmp_path / "here", use=True) == digest_of(tmp_path / "here")


def test_another_process_with_other_hashes_gives_the_same_digest(tmp_path: Path):
    """Otherwise nothing that is stored would ever be found again."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "study.py").write_text(STUDY)
    ask = "import study; from bygones.core.code_digest import code_digest; print(code_digest(study.recipe))"
    told = {
        subprocess.run(
            [sys.executable, "-c", ask],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_settings_are_part_of_a_recipes_code():
    plain, slow = Recipe.of(heavy_ball.recipe), Recipe.of(heavy_ball.recipe, lr=0.01)
    assert plain.code() != slow.code()
    assert Recipe.of(heavy_ball.recipe, lr=0.01).code() == slow.code()


def test_bodies_that_look_like_docstrings_keep_their_meaning(tmp_path: Path):
    """A function that is nothing but its docstring still differs from one that does something."""
    empty = textwrap.dedent("""
        def recipe(seed):
            "words"
        """)
    assert digest_of(tmp_path, empty) == digest_of(tmp_path, empty.replace("words", "others"))
    assert digest_of(tmp_path, empty) != digest_of(tmp_path, empty + "    return seed\n")
