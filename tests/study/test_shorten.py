"""A shortened study observes the first horizons of the whole one; only its windows are cut."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.study_recipes import pool, small

from bygones.analysis.multiplicity import Family
from bygones.study.measure import measure
from bygones.study.shorten import shorten


def test_what_is_left_is_what_the_whole_study_observes_there():
    """`hold` lasts five steps and is cut at three: up to there nothing is different."""
    whole = small(("reset", "hold"), horizons=(0, 1, 3, 7))
    cut = shorten(whole, 3)
    assert cut.horizons == (0, 1, 3)
    assert [arm.name for arm in cut.arms] == ["reset", "hold"]
    assert cut.arms[1].treatments[0].window.stop == 7 < pool()["hold"].treatments[0].window.stop
    seen, expected = measure(cut)["logits"], measure(whole)["logits"].sel(step=[4, 5, 7])
    for arm in ("control", "reset", "hold"):
        np.testing.assert_array_equal(seen.sel(arm=arm), expected.sel(arm=arm))


@pytest.mark.parametrize("arm", ["swap", "shuffle"])
def test_what_rearranges_the_order_is_followed_until_it_is_over(arm):
    """`swap` lasts four steps and `shuffle` five."""
    whole = small(("reset", arm), horizons=(0, 1, 3, 5, 7))
    assert shorten(whole, 1).horizons == (0, 1, 3, 5)
    assert shorten(whole, 1).arms == whole.arms


def test_two_horizons_are_kept_and_what_begins_later_is_left_out():
    cut = shorten(small(("reset", "give"), horizons=(0, 1, 3, 7)), 0)  # `give` acts two steps on
    assert cut.horizons == (0, 1)
    assert [arm.name for arm in cut.arms] == ["reset"]


@pytest.mark.parametrize(("horizon", "is_kept"), [(1, True), (7, False)])
def test_a_family_is_kept_where_its_horizons_are(horizon, is_kept):
    family = Family("main", ("reset",), ("tv",), (horizon,))
    cut = shorten(small(("reset",), family=family), 3)
    assert cut.family == (family if is_kept else None)
