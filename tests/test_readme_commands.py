"""Every command of the README runs, in the order in which it stands, in a folder like a fresh clone's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHELL = re.compile(r"^```sh\n(.*?)^```", re.S | re.M)
FINDS_A_LOSS = ("audit", "resume")  # its example loses two sources, and so ends with 1


def commands_of(page: Path) -> list[list[str]]:
    """The words of each command of bygones on a page, without its comments."""
    lines = "\n".join(SHELL.findall(page.read_text())).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "bygones"]


def test_the_readme_has_commands_and_needs_no_file_that_is_not_there() -> None:
    found = commands_of(ROOT / "README.md")
    assert len(found) > 8
    files = {word for words in found for word in words if word.endswith(".py")}
    assert files
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.long
def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    for folder in ("docs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for words in commands_of(ROOT / "README.md"):
        ran = subprocess.run(
            [sys.executable, "-m", "bygones", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        expected = 1 if tuple(words[:2]) == FINDS_A_LOSS else 0
        assert ran.returncode == expected, (words, ran.stderr)
        assert ran.stdout.strip(), words
