"""The README and the docs agree with the code: programs, outputs, links, names, files and commands."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bygones
from bygones.cli.aliases import ALIASES
from bygones.cli.app import GROUPS, app
from bygones.cli.load import load_study
from bygones.study.certificate import certify
from bygones.study.plan import plan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def block_after(marker: str) -> str:
    """The fenced block that follows a comment in the README."""
    return README.split(f"<!-- {marker} -->")[1].split("```")[1].split("\n", 1)[1]


def test_the_readmes_program_is_the_file():
    assert block_after("docs/examples/first.py") == (ROOT / "docs/examples/first.py").read_text()


def test_the_readmes_program_prints_what_the_readme_says():
    ran = subprocess.run(
        [sys.executable, ROOT / "docs/examples/first.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = block_after("output of docs/examples/first.py")
    assert words_of(ran.stdout) == words_of(said)
    # Another processor may round another way: the words agree exactly, the numbers to a tenth.
    numbers, expected = (np.array(NUMBER.findall(text), float) for text in (ran.stdout, said))
    np.testing.assert_allclose(numbers, expected, rtol=0.1)


def words_of(text: str) -> list[str]:
    """The words of an output; how wide its columns are depends on the numbers, which are left out."""
    return NUMBER.sub("#", text).split()


def test_the_example_recipe_can_be_forked_and_planned():
    planned = plan(load_study(str(ROOT / "docs/examples/own_recipe.py")))
    assert planned.steps_shared < planned.steps_naive
    needed = certify(planned)["needed"]
    assert {"weights", "moments", "scheduler", "averages", "order"} <= set(needed)


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / "benchmarks" / "RESULTS.md", *sorted((ROOT / "changes").glob("*.md"))]
on_every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@on_every_page
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        if not target.startswith("http"):
            place = page.parent / target if target else page
            assert place.exists(), f"{page.name} links to {target}, which is not there"
            assert not anchor or anchor in anchors(place.read_text()), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [name for name in dir(bygones) if not name.startswith("_")])
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert (getattr(bygones, name).__doc__ or "").strip()


def test_importing_bygones_does_not_import_torch():
    code = (
        "import sys, bygones.publish.report, bygones.publish.bundle, bygones.store.outcomes; "
        "import bygones.analysis.effects; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------ names, files and commands in the text

PACKAGE = ROOT / "src" / "bygones"
PLACES = [ROOT, ROOT / "src", PACKAGE]  # what a file's path in the text may be relative to
NAME = re.compile(r"bygones(?:\.\w+)+")
ATTRIBUTE = re.compile(r"([A-Z]\w*)\.([a-z]\w*)")  # of a public class
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*/(?:[\w.-]+\.(?:py|json|md))?")
COMMAND = re.compile(r"bygones ([a-z][a-z-]*)(?: ([a-z-]+))?.*", re.DOTALL)


def quoted(text: str) -> list[str]:
    """What stands in backticks, outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.DOTALL)
    return re.findall(r"`([^`]+)`", prose)


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one; fields and `self.x` count as attributes."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return has_attributes(found, parts[end:])
    return False


def has_attributes(found: Any, path: list[str]) -> bool:
    for index, part in enumerate(path):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        is_last = index == len(path) - 1
        return is_last and inspect.isclass(found) and has_instance_attribute(found, part)
    return True


def has_instance_attribute(kind: type, name: str) -> bool:
    own = inspect.getsource(kind)
    return name in inspect.get_annotations(kind) or f"self.{name} = " in own


def file_exists(path: str) -> bool:
    return any((place / path).exists() for place in PLACES)


def is_command(name: str, subcommand: str) -> bool:
    if name in GROUPS:
        return not subcommand or subcommand in names_in(GROUPS[name])
    return name in names_in(app)


def names_in(group: Any) -> list[str]:
    return [command.name or command.callback.__name__ for command in group.registered_commands]


def wrong_in(text: str) -> list[str]:
    """What a text names that is not there."""
    wrong = []
    for code in quoted(text):
        if NAME.fullmatch(code):
            right = exists(code)
        elif match := ATTRIBUTE.fullmatch(code):
            kind = getattr(bygones, match[1], None)
            right = kind is None or has_attributes(kind, [match[2]])
        elif FILE.fullmatch(code) and (code.endswith(".py") or file_exists(code.split("/")[0])):
            right = file_exists(code)
        elif match := COMMAND.fullmatch(code.replace("\n", " ")):
            right = is_command(match[1], match[2] or "")
        else:
            continue
        if not right:
            wrong.append(code)
    return wrong


@on_every_page
def test_what_a_page_names_is_there(page):
    assert wrong_in(page.read_text()) == []


def test_every_row_of_the_glossary_names_something():
    rows = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    rows = [row.strip("| ").rsplit(" | ", 1)[1] for row in rows if row.startswith("| ")][1:]
    assert len(rows) > 50
    for row in rows:
        names = quoted(row)
        assert all(NAME.fullmatch(name) for name in names), row
        assert names or row.startswith("["), row


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`bygones.study.plan.plan` and `bygones.study.design.Study.horizons`", []),
        ("`bygones.study.plan.nothing`", ["bygones.study.plan.nothing"]),
        ("`bygones.scripts.arm_process.Job.splits`", ["bygones.scripts.arm_process.Job.splits"]),
        ("`Study.horizons` and `Study.looks`", ["Study.looks"]),
        ("`study/gather.py` and `study/gathering.py`", ["study/gathering.py"]),
        ("`training/lanes/` and `training/crews/`", ["training/crews/"]),
        ("`bygones audit resume -- x.py` and `bygones run`", []),
        (
            "`bygones audit twin` and `bygones twin -- x`",
            ["bygones audit twin", "bygones twin -- x"],
        ),
    ],
)
def test_a_name_that_is_not_there_is_noticed(text, wrong):
    assert wrong_in(text) == wrong


FORMER = re.compile(rf"bygones ({'|'.join(ALIASES.keys() - GROUPS.keys())})\b")


def test_no_text_in_the_code_names_a_former_command():
    files = [
        path
        for folder in ("src", "examples", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".j2", ".json")
    ]
    assert len(files) > 200
    assert [str(path) for path in files if FORMER.search(path.read_text(encoding="utf-8"))] == []
    assert FORMER.search("see `bygones check-resume`")
