"""A study's file is compiled from its text: bytecode, which a full disk may have cut, is not read."""

from __future__ import annotations

import py_compile
import sys
from pathlib import Path

import pytest

from bygones.core.importing import import_file


def test_bytecode_that_was_cut_short_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "study.py"
    path.write_text("value = 3\n")
    cached = Path(py_compile.compile(str(path), doraise=True) or "")
    cached.write_bytes(cached.read_bytes()[:-20])
    assert import_file(path).value == 3


def test_no_bytecode_is_written_and_the_users_setting_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "beside_the_study.py").write_text("value = 4\n")
    path = tmp_path / "study.py"
    path.write_text("from beside_the_study import value\n")
    assert import_file(path).value == 4
    assert not (tmp_path / "__pycache__").exists()
    assert sys.dont_write_bytecode is False
