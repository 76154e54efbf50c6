"""The pages about concepts: their examples run, and each catalogue's members stand on their page."""

import doctest
import re
from pathlib import Path

import pytest

from bygones.cli.catalogues import load_catalogue

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "getting-started.md", *sorted((DOCS / "concepts").glob("*.md"))]
EXAMPLE = re.compile(r"```python\n(>>>.*?)```", re.DOTALL)
PAGE_OF = {
    "sources": "source",
    "interventions": "intervention",
    "orders": "order",
    "probes": "probe",
    "metrics": "effect",
    "estimators": "effect",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_give_what_it_says(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS / "examples")
    text = "\n".join(EXAMPLE.findall(page.read_text(encoding="utf-8")))
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert examples.examples, f"{page.name} has no example"
    result = doctest.DocTestRunner().run(examples)
    assert result.failed == 0


@pytest.mark.parametrize("kind", PAGE_OF)
def test_every_member_stands_on_its_page(kind: str) -> None:
    text = (DOCS / "concepts" / f"{PAGE_OF[kind]}.md").read_text(encoding="utf-8")
    missing = [name for name in load_catalogue(kind) if f"`{name}`" not in text]
    assert missing == []


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
