"""`bygones doctor` names what is missing with the command that mends it, and what stops all training."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.helpers.commands import run_here

from bygones.core.extras import EXTRAS


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run() -> tuple[int, dict[str, dict[str, str]]]:
        said = run_here(monkeypatch, capsys, "doctor", "--json")
        return said.code, {one["what"]: one for one in json.loads(said.out)}

    return run


def test_where_all_is_well_there_is_no_advice(findings) -> None:
    code, found = findings()
    assert code == 0
    assert {"bygones", "Python", "torch", "CPU", "GPU", "forking", "disk"} <= set(found)
    assert {f"extra {extra}" for extra in EXTRAS.values()} <= set(found)
    assert found["torch"]["advice"] == ""


def test_a_missing_extra_has_the_command_that_installs_it(
    findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bygones.cli.doctor.is_installed", lambda package: package != "mnist1d")
    code, found = findings()
    assert code == 0
    assert "mnist1d missing" in found["extra regimes"]["found"]
    assert "sklearn" in found["extra regimes"]["found"]
    assert found["extra regimes"]["advice"].endswith("pip install 'bygones[regimes]'")


def test_a_torch_that_cannot_be_imported_is_a_sentence_and_an_exit_code(
    findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = importlib.import_module

    def broken(name: str) -> ModuleType:
        if name == "torch":
            raise OSError("libtorch_cpu.so: cannot open shared object file")
        return imported(name)

    monkeypatch.setattr("bygones.cli.doctor.importlib.import_module", broken)
    code, found = findings()
    assert code == 1
    assert "libtorch_cpu.so" in found["torch"]["found"]
    assert "pip install torch" in found["torch"]["advice"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such call there")
def test_a_folder_with_little_room_is_said(findings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 5_000_000

    monkeypatch.setattr("bygones.cli.doctor.shutil.disk_usage", lambda folder: Usage)
    assert "little" in findings()[1]["disk"]["advice"]
