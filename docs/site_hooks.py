"""Hooks of the site (mkdocs.yml): the pages of the public names, and links to files that are no pages."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
STUBS = ROOT / "src" / "bygones" / "__init__.pyi"
NAME = re.compile(r"^from \.(\S+) import (\w+) as \w+$")
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.M)
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add one page for each group of public names, and a page that lists them."""
    lists = []
    for number, (title, names) in enumerate(read_groups().items(), start=1):
        page = f"reference/{number}.md"
        blocks = "\n".join(f"::: bygones.{module}.{name}\n" for module, name in names)
        files.append(File.generated(config, page, content=f"# {title}\n\n{blocks}"))
        links = ", ".join(
            f"[`{name}`]({number}.md#bygones.{module}.{name})" for module, name in names
        )
        lists.append(f"## [{title}]({number}.md)\n\n{links}\n")
    intro = "# The public names\n\nAll are attributes of `bygones`, in the order a reader should meet them.\n"
    files.append(File.generated(config, "reference/index.md", content="\n".join([intro, *lists])))
    return files


def read_groups() -> dict[str, list[tuple[str, str]]]:
    """Read the groups of public names from the stubs: their titles, and of each name its module."""
    groups: dict[str, list[tuple[str, str]]] = {}
    title = ""
    for line in STUBS.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            title = line.split(". ", 1)[1].split(":")[0]
        elif found := NAME.match(line):
            groups.setdefault(title, []).append((found[1], found[2]))
    return groups


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let a link to a file that is no page of the site lead to the repository."""
    here = PurePosixPath("docs", page.file.src_uri).parent

    def lead(link: re.Match[str]) -> str:
        path = (ROOT / here / link[1]).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            return link[0]  # mkdocs reports it
        inside = path.relative_to(ROOT).as_posix()
        is_page = path.suffix in (".md", ".png") and inside.startswith("docs/")
        kind = "tree" if path.is_dir() else "blob"
        return (
            link[0]
            if is_page
            else f"{config.extra['repository']}/{kind}/main/{inside}{link[2] or ''}"
        )

    return LINK.sub(lead, markdown)


class FencedExamples(Extension):
    """Show the examples of docstrings as code; Markdown would take `>>>` for a quotation."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fence_examples(obj.docstring.value)


def fence_examples(docstring: str) -> str:
    """Fence each block that begins with a prompt, to the next empty line."""
    return EXAMPLE.sub(lambda example: f"\n```pycon\n{example[0]}\n```", docstring)
