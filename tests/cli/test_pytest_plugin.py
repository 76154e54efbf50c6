"""The pytest plugin: red with the lost source's name, green where nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bygones.cli.pytest_plugin import ResumeFound

PROJECT = Path(__file__).parents[2] / "examples" / "tested_project"
PLUGIN = ("-p", "no:bygones", "-p", "bygones.cli.pytest_plugin", "-p", "no:cacheprovider")


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the project's tests as its user would; the plugin is loaded by name, installed or not."""
    environment = {**os.environ, "COLUMNS": "300"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGIN, *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT, tmp_path / "project"))


def edit(project: Path, old: str, new: str) -> None:
    script = project / "train.py"
    text = script.read_text()
    assert old in text
    script.write_text(text.replace(old, new))


def test_a_lost_schedule_is_red_with_its_name_and_what_to_write(project: Path) -> None:
    edit(project, '    scheduler.load_state_dict(saved["scheduler"])\n', "")
    ran = run_pytest(project)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "scheduler: not what was carried" in ran.stdout
    assert "scheduler.load_state_dict(checkpoint['scheduler'])" in ran.stdout
    assert "bygones/cli/pytest_plugin.py" not in ran.stdout  # the user's line, not ours


@pytest.mark.long
def test_a_whole_checkpoint_is_green(project: Path) -> None:
    ran = run_pytest(project)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.long
def test_a_script_that_cannot_be_checked_fails_in_a_sentence(project: Path) -> None:
    edit(project, "first_step = 0", "raise ValueError('no data')")
    ran = run_pytest(project)
    assert ran.returncode == 1
    assert "the check could not be made" in ran.stdout
    assert "no data" in ran.stdout


def test_tests_with_the_fixture_can_be_left_out(project: Path) -> None:
    ran = run_pytest(project, "-m", "not bygones", "--strict-markers")
    assert "1 deselected" in ran.stdout


def found(*sources: str) -> ResumeFound:
    verdicts: list[dict[str, Any]] = [
        {"source": source, "outcome": "FAIL", "why": "not what was carried"} for source in sources
    ]
    verdicts.append({"source": "weights", "outcome": "PASS", "why": "restored to the bit"})
    return ResumeFound({"script": "train.py", "verdicts": verdicts, "remedies": {}})


def test_what_is_allowed_to_be_lost_has_to_be_lost() -> None:
    found().assert_nothing_lost()
    found("order").assert_nothing_lost(allow=["order"])
    with pytest.raises(AssertionError, match="loses:\n  scheduler: not what was carried"):
        found("scheduler", "order").assert_nothing_lost(allow=["order"])
    with pytest.raises(AssertionError, match="not lost: order"):
        found().assert_nothing_lost(allow=["order"])
