"""What the README and the docs say is so: programs run, outputs agree, links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bygones
from bygones.cli.load import load_study
from bygones.study.certificate import certify
from bygones.study.plan import plan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def block_after(marker: str) -> str:
    """The fenced block that follows a comment in the README."""
    return README.split(f"<!-- {marker} -->")[1].split("```")[1].split("\n", 1)[1]


def test_the_readmes_program_is_the_file():
    assert block_after("docs/examples/first.py") == (ROOT / "docs/examples/first.py").read_text()


def test_the_readmes_program_prints_what_the_readme_says():
    ran = subprocess.run(
        [sys.executable, ROOT / "docs/examples/first.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = block_after("output of docs/examples/first.py")
    assert NUMBER.sub("#", ran.stdout) == NUMBER.sub("#", said)
    # Another processor may round another way: the words agree exactly, the numbers to a tenth.
    numbers, expected = (np.array(NUMBER.findall(text), float) for text in (ran.stdout, said))
    np.testing.assert_allclose(numbers, expected, rtol=0.1)


def test_the_example_recipe_can_be_forked_and_planned():
    planned = plan(load_study(str(ROOT / "docs/examples/own_recipe.py")))
    assert planned.steps_shared < planned.steps_naive
    needed = certify(planned)["needed"]
    assert {"weights", "moments", "scheduler", "averages", "order"} <= set(needed)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), (
                f"{page.name} links to {target}, which is not there"
            )


@pytest.mark.parametrize("name", [name for name in dir(bygones) if not name.startswith("_")])
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert (getattr(bygones, name).__doc__ or "").strip()


def test_importing_bygones_does_not_import_torch():
    code = (
        "import sys, bygones.publish.report, bygones.publish.bundle, bygones.store.outcomes; "
        "import bygones.analysis.effects; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
