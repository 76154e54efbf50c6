"""The study of a script as a file: what it spells, what wins over it, and what is wrong in a sentence."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest

from bygones.cli.script_study import make_job
from bygones.cli.study_file import expand_study_file, find_study_file, write_study
from bygones.core.errors import BygonesError

FILE = """
script = "train.py --lr 0.1 --seed {seed}"
fork-at = 60
horizons = [0, 10]
seeds = "0-3"
replay = false
sufficiency = true
store = "elsewhere"

[arms]
"drop all" = "reset:moments"
both = ["reset:moments", "reset:batchnorm"]

[margins]
accuracy = 0.005
"""
WITH_VALUES = ("--fork-at", "--horizons", "--seeds", "--store", "--arm", "--margin", "--workers")
SWITCHES = ("--sufficiency", "--replay", "--json")
OPTIONS: dict[str, bool] = {name: name in WITH_VALUES for name in (*WITH_VALUES, *SWITCHES)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spelled(line: str) -> list[str]:
    words = shlex.split(line)
    place = find_study_file(words, OPTIONS)
    assert place is not None
    return expand_study_file(words, place, OPTIONS)


def test_a_file_stands_for_the_command_line_that_it_spells(folder: Path) -> None:
    (folder / "study.toml").write_text(FILE)
    assert spelled("study.toml") == shlex.split(
        "--fork-at 60 --horizons 0,10 --seeds 0-3 --sufficiency --store elsewhere "
        "--arm 'drop all=reset:moments' --arm both=reset:moments+reset:batchnorm "
        "--margin accuracy=0.005 -- train.py --lr 0.1 --seed {seed}"
    )


def test_what_is_typed_comes_after_and_so_wins(folder: Path) -> None:
    (folder / "study.toml").write_text('script = "train.py"\nseeds = "0-3"\n')
    assert spelled("--json study.toml --seeds 4") == shlex.split(
        "--seeds 0-3 --json --seeds 4 -- train.py"
    )


def test_options_of_another_command_are_left_out(folder: Path) -> None:
    (folder / "study.toml").write_text(FILE)
    assert expand_study_file(["study.toml"], 0, {"--seed"})[0] == "--"


@pytest.mark.parametrize(
    "line", ["--store a.toml -- train.py", "digits", "-- train.py b.toml", "--store=a.toml digits"]
)
def test_what_is_no_study_file_is_none(line: str) -> None:
    assert find_study_file(shlex.split(line), OPTIONS) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fork-at = 3", "has no script"),
        ('script = "a.py"\nfork_at = 3', "did you mean 'fork-at'"),
        ('script = "a.py', "is no TOML file"),
        ("script = 3", "expected a text or a list"),
        ('script = "a.py"\nseeds = {a = 1}', "Expected what `--seeds` takes"),
        ('script = "a.py"\narms = "reset:moments"', "expected a table [arms]"),
        ('script = "a.py \'b"', "cannot be split into words"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_a_sentence(folder: Path, text: str, said: str) -> None:
    (folder / "study.toml").write_text(text)
    with pytest.raises(BygonesError) as refused:
        spelled("study.toml")
    assert said in str(refused.value)
    assert "study.toml" in str(refused.value)


def test_a_file_that_is_not_there_and_two_scripts_are_refused(folder: Path) -> None:
    with pytest.raises(BygonesError, match="there is no file"):
        spelled("study.toml")
    (folder / "study.toml").write_text(FILE)
    with pytest.raises(BygonesError, match="names the script already"):
        spelled("study.toml -- other.py")


def test_what_init_writes_spells_the_arms_that_it_was_given(folder: Path) -> None:
    script, arms = (
        ["train it.py", "--name", 'a "b" \\'],
        ["half=scale(0.5):moments@3:5", "r=reset:x"],
    )
    text = write_study(script, 7, arms, [{"name": "moments", "lifetime": "unbounded"}], "SEED")
    assert tomllib.loads(text)["arms"] == {"half": "scale(0.5):moments@3:5", "r": "reset:x"}
    (folder / "s.toml").write_text(text)
    words = spelled("s.toml")
    assert words[words.index("--") + 1 :] == script
    assert [words[at + 1] for at, word in enumerate(words) if word == "--arm"] == arms


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-m", "package.train", "--lr", "1"], 'run_module("package.train"'),
        (["python3", "--lr", "1"], "from PACKAGE import main; main()"),
    ],
)
def test_a_module_and_a_command_are_refused_with_the_file_to_write(
    words: list[str], line: str
) -> None:
    with pytest.raises(BygonesError, match="is no file") as refused:
        make_job(words, None)
    assert line in str(refused.value)
    assert str(refused.value).endswith("-- launch.py --lr 1")
