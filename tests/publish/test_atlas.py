"""The atlas from outcomes alone: which arm stands for a source, how long it stood, and what has no share."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest
from tests.helpers.synthetic import make_outcomes
from tests.publish.test_report import outside_references, text_of

from bygones.analysis.signature import Signature
from bygones.core.errors import DesignError
from bygones.publish.report.atlas import make_entry, write_atlas
from bygones.publish.report.atlas.tables import effect_lasts, shared_sources

pytestmark = pytest.mark.usefixtures("page_only")
SEEN = Signature("a <bold> claim", "more is seen", "Somebody 2020").seen("0.5 & more", False)


def entry(name: str, **settings):
    return make_entry(name, make_outcomes(**settings), (SEEN,), seconds=90.0, num_bytes=2_000_000)


def test_a_reset_stands_for_its_source_and_else_the_first_arm():
    """The first arm of moments is made a scaling, and the second is a reset; the order has a swap alone."""
    outcomes = make_outcomes(more_arms=1)
    arms = {arm["name"]: arm for arm in outcomes.attrs["arms"]}
    arms["reset-moments"]["treatments"][0]["intervention"] = "scale(0.5)"
    cells = {cell.source: cell.arm.name for cell in make_entry("one", outcomes).cells}
    assert cells == {
        "moments": "reset-moments-0",
        "batchnorm": "reset-batchnorm",
        "order": "swap-order",
    }


def test_another_draw_of_the_order_stands_for_it_before_a_swap():
    outcomes = make_outcomes(more_arms=1)
    arms = {arm["name"]: arm for arm in outcomes.attrs["arms"]}
    treatment = arms["reset-moments-0"]["treatments"][0]
    treatment["source"], treatment["intervention"] = "order", "reseed(0)"
    cells = {cell.source: cell.arm.name for cell in make_entry("one", outcomes).cells}
    assert cells["order"] == "reset-moments-0"
    treatment["intervention"] = "scale(0.5)"
    cells = {cell.source: cell.arm.name for cell in make_entry("one", outcomes).cells}
    assert cells["order"] == "swap-order"


def test_an_effect_lasts_from_its_last_step_above_1_percent_to_the_first_below():
    lasted = {reading.arm: effect_lasts(reading) for reading in entry("one").readings}
    # Planted: BatchNorm's decays with an e-fold of 9.5 steps from 0.8, moments' with one of 400.
    assert lasted == {
        "reset-batchnorm": "30 to 80",
        "reset-moments": "over 300",
        "swap-order": "over 300",
    }


def test_sources_of_several_regimes_are_columns():
    entries = [entry("one"), entry("two", seed=1)]
    assert shared_sources(entries) == ["moments", "batchnorm", "order"]
    assert shared_sources(entries[:1]) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"num_seeds": 1},
        {"num_seeds": 2},
        {"kind": "values"},
        {"diverged": tuple(("reset-moments", seed, 310) for seed in range(8))},
    ],
    ids=["one seed", "two seeds", "values", "all diverged"],
)
def test_a_study_without_a_share_or_an_interval_has_its_place(settings, tmp_path):
    page = write_atlas([entry("odd", **settings)], tmp_path).read_text()
    assert outside_references(page) == []
    rows = list(csv.DictReader((tmp_path / "tables" / "atlas.csv").read_text().splitlines()))
    assert {row["arm"] for row in rows} == {"reset-moments", "reset-batchnorm", "swap-order"}
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text_of(page))


def test_what_is_left_out_and_what_was_not_met_is_said(tmp_path):
    left_out = {"gone": "it needs <nothing>. Install it with: pip install nothing"}
    page = write_atlas([entry("one")], tmp_path, left_out=left_out, quick=True).read_text()
    said = text_of(page)
    assert "gone : it needs <nothing>." in said
    assert "A quick look" in said
    assert "Of 1 published result, 0 met, 1 not met, and 0 that cannot be told here." in said
    assert html.escape(SEEN.observed) in page
    assert "<bold>" not in page
    assert "1.5 min" in said
    assert "A quick look" not in text_of(write_atlas([entry("one")], tmp_path).read_text())


def test_an_atlas_of_nothing_is_refused(tmp_path):
    with pytest.raises(DesignError, match="at least one regime"):
        write_atlas([], tmp_path / "atlas")
    assert not Path(tmp_path / "atlas").exists()
