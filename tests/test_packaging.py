"""Packaging: the wheel works in an empty folder, its page has absolute links, each change has a kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
SITE = "https://github.com/bygones/bygones/blob/main/"
RAW = "https://raw.githubusercontent.com/bygones/bygones/main/"
KINDS = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}

OWN_SCRIPT = """
import argparse, os
import torch
from torch import nn
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()
torch.manual_seed(options.seed)
inputs = torch.randn(64, 4)
labels = (inputs.sum(1) > 0).long()
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
first = 0
if options.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    first = saved["epoch"]
loader = torch.utils.data.DataLoader(list(zip(inputs, labels)), 16, shuffle=True)
for epoch in range(first, 6):
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "epoch": epoch + 1}, "last.pt")
with torch.no_grad():
    print("accuracy", (model(inputs).argmax(1) == labels).float().mean().item())
"""


def links_in(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def page_of(readme: str) -> str:
    """The README as the build turns it into the package's page."""
    for rule in PAGE["substitutions"]:
        readme = re.sub(rule["pattern"], rule["replacement"], readme)
    return readme


def test_links_of_the_packages_page_are_absolute_and_lead_to_the_same_files() -> None:
    readme = (ROOT / "README.md").read_text()
    there, here = links_in(page_of(readme)), links_in(readme)
    assert len(here) > 20
    for absolute, relative in zip(there, here, strict=True):
        base = RAW if relative.endswith(".png") else SITE
        assert absolute == (relative if relative.startswith("http") else base + relative)


def test_each_change_is_of_a_kind_that_the_changelog_has_and_needs_no_folder() -> None:
    changes = [path for path in (ROOT / "changes").glob("*.md") if path.name != "README.md"]
    assert changes
    for path in changes:
        topic, kind, _ = path.name.split(".")
        assert topic
        assert kind in KINDS
        assert links_in(path.read_text()) == [], "a link would break when it is moved"


def test_the_changelog_has_every_change() -> None:
    if find_spec("towncrier") is None:
        pytest.skip("towncrier is not installed; the extra dev brings it")
    words = ["-m", "towncrier", "build", "--draft", "--version", "1", "--date", "2026-01-01"]
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    said = " ".join(ran.stdout.split())
    for path in (ROOT / "changes").glob("*.*.md"):
        assert " ".join(path.read_text().split()) in said, path.name


def test_windows_is_refused_in_a_sentence() -> None:
    code = "import sys; sys.platform = 'win32'; import bygones"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "bygones runs on Linux and macOS" in ran.stderr


def test_citation_and_package_have_one_version() -> None:
    assert f"version: {PROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()


# ------------------------------------------------------------------ the wheel itself


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("hatchling", "hatch_fancy_pypi_readme"):
        if find_spec(package) is None:
            pytest.skip(
                f"{package}, which builds the wheel, is not installed; the extra dev brings it"
            )
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    made = subprocess.run(
        [*pip, "--wheel-dir", str(out), str(ROOT)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into, beside the packages that it needs."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(folder), str(wheel)], check=True)
    return folder


@pytest.mark.long
def test_the_wheel_has_its_data_its_types_and_its_page(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        meta = next(name for name in names if name.endswith("METADATA"))
        page = archive.read(meta).decode()
    tracked = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tracked <= names
    assert "bygones/py.typed" in names
    assert "Operating System :: POSIX :: Linux" in page
    assert all(link.startswith("http") for link in links_in(page))


@pytest.mark.long
def test_the_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def run(*words: str, code: int = 0, **variables: str) -> str:
        path = os.pathsep.join(filter(None, [variables.pop("before", ""), str(installed)]))
        environment = {**os.environ, "PYTHONPATH": path, **variables}
        ran: Any = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == code, (words, ran.stdout, ran.stderr)
        return ran.stdout + ran.stderr

    (tmp_path / "train.py").write_text(OWN_SCRIPT)
    (tmp_path / "recipe.py").write_text((ROOT / "docs/examples/own_recipe.py").read_text())
    where = run("-c", "import bygones; print(bygones.__file__)")
    assert where.startswith(str(installed)), "this is not the wheel's bygones"
    cli = ("-m", "bygones")
    assert "Report:" in run(*cli, "demo", "--seeds", "0-1")
    assert "of another seed" in run(*cli, "run", "recipe.py", "--seeds", "0-1", "--store", "r")
    script = ("--", "train.py", "--seed", "{seed}")
    assert "of another seed" in run(*cli, "run", "--fork-at", "9", "--horizons", "1,9",
                                    "--seeds", "0-2", "--store", "s", *script)  # fmt: skip
    lost = run(*cli, "audit", "resume", "--resume", "--resume", *script, code=1)
    assert re.search(r"moments.*FAIL|FAIL.*moments", lost)
    assert "Report: s-report/report.html" in run(*cli, "report", "s")
    assert (tmp_path / "bygones-demo" / "report.html").stat().st_size > 100_000

    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys; sys.modules['sklearn'] = None\n")
    said = run(*cli, "demo", "--out", "other", code=3, before=str(blocked))
    assert "pip install 'bygones[regimes]'" in said
    assert "Traceback" not in said
