"""The atlas holds what was measured, a stopped run of it costs nothing, and what is left out is named."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.helpers.commands import Said, run_here
from tests.helpers.study_recipes import TRAINED, classifier, small
from tests.publish.test_report import outside_references

from bygones.analysis.effects import effect
from bygones.analysis.signature import Signature
from bygones.core.errors import RecipeError
from bygones.core.extras import import_extra
from bygones.publish.result import load
from bygones.publish.verdicts import format_effect_share
from bygones.study.design import Study
from bygones.training.recipe import Parts
from bygones.zoo.regimes import REGIMES, SIGNATURES

PAGE = Path("bygones-atlas-quick")
NOWHERE = {"missing": True, "broken": True}


def lacks_a_package(seed: int) -> Parts:
    if NOWHERE["missing"]:
        with patch.dict(sys.modules, {"mnist1d": None, "mnist1d.data": None}):
            import_extra("mnist1d.data", "it")
    return classifier(seed)


def breaks(seed: int) -> Parts:
    if NOWHERE["broken"] and seed == 2:
        raise ValueError("no third seed today")
    return classifier(seed)


def tiny(name: str, recipe: object = classifier) -> Callable[[], Study]:
    return lambda: small(("reset", "hold batchnorm"), recipe=recipe, name=name)


def published(outcomes) -> tuple[Signature, ...]:
    found = Signature("resets matter", "they move something", "Nobody 2000")
    return (found.seen(f"{outcomes.sizes['seed']} seeds", True),)


pytestmark = pytest.mark.usefixtures("page_only")


@pytest.fixture
def atlas(tmp_path, monkeypatch, capsys) -> Callable[..., Said]:
    """Runs `bygones dynamics atlas` in this process, with four regimes of the test's own in the catalogue."""
    regimes = {
        "first": tiny("first"),
        "lacking": tiny("lacking", lacks_a_package),
        "broken": tiny("broken", breaks),
        "last": tiny("last"),
    }
    monkeypatch.setattr(REGIMES, "_members", regimes)
    monkeypatch.setattr(SIGNATURES, "_members", {"first": published})
    monkeypatch.setattr("bygones.cli.atlas_commands.QUICK_SEEDS", 3)
    monkeypatch.chdir(tmp_path)
    NOWHERE.update(missing=True, broken=True)
    return lambda *arguments: run_here(
        monkeypatch, capsys, "atlas", "--workers", "1", "--lanes", "1", *arguments
    )


def test_the_page_holds_what_was_measured(atlas):
    said = atlas("--quick", "first", "last")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == f"Atlas: {PAGE}/atlas.html"
    page = (PAGE / "atlas.html").read_text()
    rows = list(csv.DictReader((PAGE / "tables" / "atlas.csv").read_text().splitlines()))
    assert [(row["regime"], row["source"]) for row in rows if row["regime"] == "first"]
    for name in ("first", "last"):
        outcomes = load(PAGE / "stores" / name).outcomes
        assert outcomes.sizes["seed"] == 3
        for arm in ("reset", "hold batchnorm"):
            found = effect(outcomes, arm, 11)
            assert found.fraction is not None
            shown = format_effect_share(found)
            assert page.count(shown) >= 3  # in the picture, the grid and the table
            (row,) = [row for row in rows if (row["regime"], row["arm"]) == (name, arm)]
            assert float(row["share"]) == found.fraction.value
            assert float(row["share_high"]) == found.fraction.high
    assert "Resets matter: they move something." in page
    assert "3 seeds" in page
    assert "(3 seed pairs each)" in page
    assert re.search(r'<td class="n" data-value="[\d.e-]+">\d+\.\d min</td>', page)


def test_the_page_asks_for_nothing_from_outside_and_the_tables_are_there(atlas):
    atlas("--quick", "first")
    assert outside_references((PAGE / "atlas.html").read_text()) == []
    for name in ("atlas", "signatures", "costs"):
        assert (PAGE / "tables" / f"{name}.csv").stat().st_size
        assert r"\begin{table}" in (PAGE / "tables" / f"{name}.tex").read_text()
    assert "| `first` |" in (PAGE / "atlas.md").read_text()


def test_a_plan_trains_nothing_and_a_second_time_nothing_is_trained(atlas):
    said = atlas("--quick", "--plan", "first")
    assert said.code == 0
    assert "first: 3 seeds × 6 arms to step 11, " in said.err
    assert not (PAGE / "atlas.html").exists()
    atlas("--quick", "first")
    page = (PAGE / "atlas.html").read_bytes()
    trained = TRAINED["steps"]
    said = atlas("--quick", "first", "--plan")
    assert "everything is stored already" in said.err
    to_plan = TRAINED["steps"] - trained  # a few steps are timed
    said = atlas("--quick", "first")
    assert "nothing to train" in said.err
    assert TRAINED["steps"] - trained == 2 * to_plan
    assert (PAGE / "atlas.html").read_bytes() == page


def test_a_regime_that_fails_costs_no_finished_work_and_is_named(atlas):
    said = atlas("--quick", "first", "broken", "last")
    assert said.code == RecipeError.exit_code
    assert "1 regime failed, so the atlas is without: broken" in said.err
    assert "no third seed today" in said.err
    page = (PAGE / "atlas.html").read_text()
    assert '<span class="arm">broken</span>' in page
    assert '<th scope="row">last' in page

    NOWHERE["broken"] = False
    said = atlas("--quick", "first", "broken", "last")
    assert said.code == 0, said.err
    assert said.err.count("nothing to train") == 2  # what was finished
    assert "Left out" not in (PAGE / "atlas.html").read_text()


def test_a_regime_whose_package_is_missing_is_left_out_with_the_command_that_installs_it(atlas):
    command = (
        "it needs mnist1d, which is not installed. Install it with: pip install 'bygones[regimes]'"
    )
    said = atlas("--quick", "lacking", "last")
    assert said.code == 0
    assert f"lacking is left out: {command}" in said.err
    assert "pip install" in (PAGE / "atlas.html").read_text()
    said = atlas("--quick", "lacking", "--out", "alone")
    assert said.code == 7
    assert command in said.err
    assert not Path("alone/atlas.html").exists()


def test_a_study_that_cannot_be_made_costs_the_others_nothing(atlas, monkeypatch):
    members = {**REGIMES._members, "raising": lambda: 1 / 0}  # type: ignore[attr-defined]
    monkeypatch.setattr(REGIMES, "_members", members)
    said = atlas("--quick", "raising", "last")
    assert said.code == 70
    assert "raising is left out: it raised ZeroDivisionError: division by zero." in said.err
    assert '<th scope="row">last' in (PAGE / "atlas.html").read_text()


def test_an_unknown_regime_is_named_with_a_suggestion_before_anything_is_trained(atlas):
    said = atlas("--quick", "first", "lats")
    assert (said.code, said.out) == (2, "")
    assert "no regime called 'lats'; did you mean 'last'?" in said.err
    assert not PAGE.exists()


@pytest.mark.long
def test_a_bundle_can_be_verified_and_its_digest_stands_on_the_page(atlas, monkeypatch, capsys):
    said = atlas("--quick", "first", "--bundle")
    assert said.code == 0, said.err
    digest = re.search(r'<td class="hash">([0-9a-f]{64})</td>', (PAGE / "atlas.html").read_text())
    assert digest is not None
    verify = ("bundle", "verify", PAGE / "bundles" / "first.zip", "--digest", digest[1])
    assert run_here(monkeypatch, capsys, *verify).code == 0
