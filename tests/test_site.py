"""The documentation as a site: every page is in its menu, and it builds without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MENU = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
GENERATED = {"reference/index.md"}  # by docs/site_hooks.py, from the public names
ROW = re.compile(
    r"^\| (?P<what>[A-Z].*?) \| (?P<much>.*?) \| \[[\w ]+\]\((?P<page>.*?)\) \|$", re.M
)
NAMES = re.compile(r"^from \.(\S+) import (\w+) as", re.M)
NUMBER = re.compile(r"\d[\d.,e-]*\d|\d")


def test_every_page_is_in_the_menu_once() -> None:
    listed = re.findall(r"(\S+\.md)$", MENU, re.M)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(listed) == sorted(pages | GENERATED)


def test_each_number_that_was_found_stands_on_the_page_that_it_leads_to() -> None:
    rows = [*ROW.finditer((DOCS / "findings.md").read_text())]
    assert len(rows) >= 10
    for row in rows:
        there = set(NUMBER.findall((DOCS / row["page"]).read_text()))
        numbers = NUMBER.findall(row["much"])
        assert numbers
        assert set(numbers) <= there, (row["what"], set(numbers) - there)


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "mkdocstrings"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed; make site installs it (the extra docs)")
    build = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run([sys.executable, *build], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    pages = "".join(path.read_text() for path in (tmp_path / "site").glob("reference/*/index.html"))
    stubs = (ROOT / "src" / "bygones" / "__init__.pyi").read_text()
    public = {f"bygones.{module}.{name}" for module, name in NAMES.findall(stubs)}
    assert len(public) > 90
    assert public <= set(re.findall(r'id="(bygones\.[\w.]+)"', pages))
    front = (tmp_path / "site" / "index.html").read_text()
    assert 'src="http' not in front, "the site asks for nothing from outside"
    assert 'data-md-component="source"' not in front, "this part asks GitHub for numbers"
