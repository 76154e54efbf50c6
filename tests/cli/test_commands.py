"""The commands themselves: help pages, examples, former names, and what takes a recipe or a script."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import Said, run_here

from bygones.cli.aliases import ALIASES, replace_aliases
from bygones.cli.app import GROUPS, app
from bygones.cli.command_types import Command, takes_script

ROOT = Path(__file__).parents[2]
SCRIPT = "prints_partial.py"

STUDY = """
from tests.helpers.study_recipes import plain, small
def study(): return small(("reset",), seeds=(0, 1))
"""

Call = tuple[str, dict[str, Any]]  # the path of a command, and its parameters


@pytest.fixture
def bygones(tmp_path, monkeypatch, capsys) -> Callable[..., Said]:
    """Runs a command in this process, in a folder with a study and a script."""
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "study.toml").write_text(f'script = "{SCRIPT}"')
    shutil.copy(ROOT / "tests" / "awkward_scripts" / SCRIPT, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


@pytest.fixture
def parse(bygones, monkeypatch) -> Callable[[str], Call]:
    """Parses a command line as `bygones` does; the command is not run, and options are checked."""
    calls: list[Call] = []

    def remember(self: Command, ctx: Any) -> None:
        if "target" in ctx.params:
            takes_script(ctx, ctx.params["target"])
        calls.append((ctx.command_path, dict(ctx.params)))

    monkeypatch.setattr(Command, "invoke", remember, raising=False)

    def parsed(line: str) -> Call:
        calls.clear()
        said = bygones(*shlex.split(line))
        assert said.code == 0, said.err
        return calls[0]

    return parsed


def names_in(typer_group: Any) -> list[str]:
    return [c.name or c.callback.__name__ for c in typer_group.registered_commands]


def in_shell_blocks(page: str) -> str:
    fenced = re.split(r"^```", page, flags=re.M)[1::2]
    return "\n".join(block for block in fenced if block.startswith(("sh\n", "\n")))


VISIBLE = [name for name in names_in(app)] + [
    f"{group} {name}" for group in GROUPS for name in names_in(GROUPS[group])
]


# ------------------------------------------------------------------ help


def rows_of(page: str) -> list[str]:
    """The rows of a help page that name a command or an option: those that are indented by two."""
    table = page.split("\n\n", 2)[2]
    return [line for line in table.splitlines() if re.match(r"  [a-z]", line)]


def test_help_is_a_table_of_contents(bygones):
    page = bygones("--help").out
    named = [row.split()[0] for row in rows_of(page)]
    assert len(named) <= 15
    assert set(named) == {*names_in(app), *GROUPS} - {"script"}  # `run -- SCRIPT` says the same
    assert named[0] == "demo"
    assert not set(named) & (ALIASES.keys() - GROUPS.keys())
    assert len(page.splitlines()) <= 27


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_no_line_of_a_table_of_contents_is_cut_or_wrapped(bygones, group):
    page = bygones(*group.split(), "--help").out
    assert not re.search(r"\.\.\.$", page, flags=re.M)
    assert all(row.endswith(".") for row in rows_of(page))
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_a_group_alone_prints_its_help(bygones, group):
    said = bygones(*group.split())
    assert said == bygones(*group.split(), "--help")
    assert said.code == 0
    assert said.err == ""
    assert said.out.startswith(f"Usage: bygones {group}".rstrip())


@pytest.mark.parametrize("name", VISIBLE)
def test_the_examples_of_a_help_page_parse(bygones, parse, name):
    page = inspect.cleandoc(bygones(*name.split(), "--help").out).replace("\\\n", "")
    examples = re.findall(r"^    (bygones .*)$", page, flags=re.M)
    assert examples
    for example in examples:
        assert parse(example.removeprefix("bygones "))[0] == f"bygones {name}"
        for word in example.split():
            assert not word.endswith(".py") or (ROOT / word).is_file()


def test_options_of_one_kind_are_under_a_heading_of_their_own(bygones):
    page = bygones("run", "--help").out
    common, recipe, script = re.split(r"^For a (?:recipe|script):$", page, flags=re.M)
    assert "\n  --seeds" in common
    assert "\n  --lanes" in recipe
    assert "\n  --fork-at" in script
    assert "\n  --fork-at" not in common + recipe
    alone = bygones("script", "run", "--help").out
    assert "--fork-at" in alone
    assert "--lanes" not in alone
    assert "For a" not in alone


def test_the_version_is_printed(bygones):
    said = bygones("--version")
    assert said.code == 0
    assert re.fullmatch(r"bygones \d+\.\d+\.\d+\n", said.out)


# ------------------------------------------------------------------ commands in the documentation

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*/*.py"))
QUOTED = sorted(
    {
        (page.name, line)
        for page in [*PAGES, *EXAMPLES]
        for line in re.findall(
            r"^ *(?:[\w.:/]+=\S+ )*(?:\.venv/bin/)?bygones (.*?)(?: +#.*)?$",
            page.read_text(),
            flags=re.M,
        )
        if page.suffix == ".py" or f"bygones {line}" in in_shell_blocks(page.read_text())
    }
)


@pytest.mark.parametrize(("page", "line"), QUOTED)
def test_a_command_in_the_documentation_parses_and_has_its_current_name(parse, page, line):
    words = shlex.split(line)
    assert replace_aliases(words, {group: names_in(GROUPS[group]) for group in GROUPS}) == words
    assert parse(line)[0].removeprefix("bygones ") in VISIBLE


def test_commands_are_found_in_the_documentation():
    assert len(QUOTED) > 25
    assert {"README.md", "bundles.md", "scripts.md", "plain.py"} <= {page for page, _ in QUOTED}


# ------------------------------------------------------------------ former names

FORMER = {
    "twin --at 3 --json -- x.py --seed {seed}": "audit transparency --at 3 --json -- x.py --seed {seed}",
    "check-resume --resume '--resume last.pt' -- x.py": "audit resume --resume '--resume last.pt' -- x.py",
    "observers --until 9 -- x.py --json": "audit observers --until 9 -- x.py --json",
    "sufficiency --seeds 3,4 -- x.py": "audit inventory --seeds 3,4 -- x.py",
    "diff a.jsonl b.jsonl": "ledger diff a.jsonl b.jsonl",
    "contract a.jsonl --against b": "ledger contract a.jsonl --against b",
    "atlas digits --quick": "dynamics atlas digits --quick",
    "checklist bygones-store --markdown": "store checklist bygones-store --markdown",
    "sensitivity digits --cells 4": "dynamics sensitivity digits --cells 4",
    "verify a.zip --digest 12": "bundle verify a.zip --digest 12",
    "script --fork-at 9 -- x.py --lr 1": "script run --fork-at 9 -- x.py --lr 1",
    "script x.py": "script run -- x.py",
    "ledger digits --until 3 --out a": "ledger write digits --until 3 --out a",
    "ledger --out a -- x.py 3": "ledger write --out a -- x.py 3",
    "bundle bygones-store --no-report": "bundle write bygones-store --no-report",
    "bundle --license MIT bygones-store": "bundle write --license MIT bygones-store",
}


@pytest.mark.parametrize(("former", "current"), FORMER.items())
def test_a_former_name_is_the_current_command(parse, former, current):
    assert parse(former) == parse(current)


def test_every_former_name_is_tried():
    assert {line.split()[0] for line in FORMER} == ALIASES.keys()


# ------------------------------------------------------------------ a recipe or a script


def test_the_sources_of_a_recipe_and_of_a_study_are_listed(bygones):
    said = bygones("sources", "study.py", "--at", "3", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["step"] == 3
    by_name = {source["name"]: source for source in found["sources"]}
    assert by_name["moments"]["bytes"] > 0
    assert {"weights", "moments", "order", "streams"} <= by_name.keys()
    plain = bygones("sources", "study.py:plain", "--at", "3")
    assert plain.out.startswith("Memory that study.py:plain carries across step 3:")
    assert "moments" in plain.out


def test_sources_plan_and_run_take_a_script(commands, tmp_path):
    shutil.copy(ROOT / "tests" / "awkward_scripts" / SCRIPT, tmp_path)
    said = commands(tmp_path, "sources", "--at", "3", "--json", "--", SCRIPT)
    assert said.code == 0, said.err
    assert said.out == commands(tmp_path, "script", "sources", "--at", "3", "--json", SCRIPT).out
    assert "moments" in {source["name"] for source in json.loads(said.out)["sources"]}

    options = ("--fork-at", "10", "--horizons", "0,4", "--seeds", "0-1", "--workers", "1", "--json")
    options = (*options, "--arm", "a=reset:moments")
    said = commands(tmp_path, "plan", *options, "--", SCRIPT)
    assert said.code == 0, said.err
    planned = json.loads(said.out)
    assert planned["seeds"] == 2
    assert planned["steps_left"] == planned["steps_with_sharing"] > 0
    assert "moments" in {source["name"] for source in planned["sources"]}
    assert not (tmp_path / "bygones-store").exists()
    assert (
        "Left to run"
        in commands(tmp_path, "script", "plan", *options[:-3], *options[-2:], "--", SCRIPT).out
    )

    ran = commands(tmp_path, "run", *options, "--", SCRIPT)
    assert ran.code == 0, ran.err
    assert "a" in {effect["arm"] for effect in json.loads(ran.out)["effects"]}
    assert json.loads(commands(tmp_path, "plan", *options, "--", SCRIPT).out)["steps_left"] == 0
    again = commands(tmp_path, "script", "run", *options, "--", SCRIPT)
    assert "everything is stored already" in again.err
    assert again.out == ran.out
    assert commands(tmp_path, "report", "bygones-store", "--json").out == ran.out


def test_a_script_keeps_its_own_debug_option(bygones, parse, monkeypatch):
    _, parameters = parse("run --debug -- x.py --debug")
    assert parameters["target"] == ["x.py", "--debug"]


REFUSED = {
    "run study.py --fork-at 3": "--fork-at is for a script, and 'study.py' is not one. Leave it out, or put "
    "`--` before a script: bygones run -- train.py",
    "plan study.py --arm a=reset:moments": "--arm is for a script",
    "sources study.py --seed-env SEED": "--seed-env is for a script",
    "ledger write study.py --until 3 --out a --optimizer 1": "--optimizer is for a script",
    "run --lanes 4 -- x.py": "--lanes is for a recipe, and x.py is a script. Leave it out.",
    "script run --until-halfwidth 0.1 -- x.py": "--until-halfwidth is for a recipe",
    "plan --half-width 0.1 -- x.py": "--half-width is for a recipe",
    "ledger write --until 3 --out a -- x.py": "--until is for a recipe",
    "ledger write study.py --out a": "needs --until STEP",
    "check -- x.py --lr 1": "x.py is a script. `bygones audit inventory -- x.py --lr 1` proves the same",
    "run study.py -- x.py 1": "'study.py' stands before `--` and 'x.py' after it",
    "run study.py other.py": "expected one recipe or study, got 2: study.py other.py",
    "run x.py --lr 1": "If x.py is a script, put `--` before it: bygones run -- x.py",
    f"run {SCRIPT}": f"{SCRIPT} defines no study(). If it is a training script, put `--` before it",
    f"sources {SCRIPT}": "defines no study()",
    "run --": "Missing argument",
}


@pytest.mark.parametrize(("line", "words"), REFUSED.items())
def test_a_command_that_means_nothing_is_refused_in_a_sentence(bygones, line, words):
    said = bygones(*shlex.split(line))
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_training_script_is_refused_before_it_is_imported(bygones):
    Path("train.py").write_text("raise SystemExit('it was run')\n")
    assert "defines no study()" in bygones("plan", "train.py").err
    for line in ("study = 3", "from x import *", "from x import y as study", "class study: ..."):
        Path("train.py").write_text(f"{line}\n")
        assert "defines no study()" not in bygones("plan", "train.py").err


def test_a_scripts_study_needs_a_store_in_a_folder(commands, tmp_path):
    shutil.copy(ROOT / "tests" / "awkward_scripts" / SCRIPT, tmp_path)
    said = commands(tmp_path, "run", "--store", "memory://there", "--", SCRIPT)
    assert said.code == 6
    assert "this needs a store in a folder, and 'memory://there' is a URL" in said.err


# ------------------------------------------------------------------ completion in a shell


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("bygones s", {"sources", "store"}),
        ("bygones store ", {"ls", "size", "rm", "export", "checklist"}),
        ("bygones audit resume --th", {"--then", "--then-env"}),
    ],
)
def test_a_shell_is_offered_commands_and_options(bygones, monkeypatch, words, offered):
    monkeypatch.setenv("_BYGONES_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert set(bygones().out.split()) == offered
