"""A stored study read back: its summary loses no number and no verdict, whatever the width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.effects import all_effects, default_metrics
from bygones.core.errors import StoreError
from bygones.core.study_facts import facts_of
from bygones.publish.result import Result, load


@pytest.fixture(scope="module")
def result() -> Result:
    return Result(make_outcomes(num_seeds=6, num_inputs=12))


def words(text: str) -> list[str]:
    return text.split()


def test_the_summary_has_each_arms_numbers_and_verdict(result: Result) -> None:
    rows = {row[0]: row for row in result.summary.rows}
    assert list(rows) == [reading.arm for reading in result.readings]
    for reading in result.readings:
        _, effect, share, _, verdict = rows[reading.arm]
        assert verdict == reading.verdict
        assert reading.last.estimate.number.replace("-", "−") in effect or "exactly" in effect
        assert share


@pytest.mark.parametrize("width", [None, 140, 100, 80, 60])
def test_nothing_is_lost_or_broken_within_a_word_at_any_width(
    result: Result, width: int | None
) -> None:
    summary = result.summary
    text = summary.to_text(width)
    cells = [summary.heading, *summary.notes, *(cell for row in summary.rows for cell in row)]
    for part in (part for cell in cells for part in words(cell)):
        assert part in words(text), part
    if width is not None and width >= 80:
        assert max(map(len, text.splitlines())) <= width


def test_a_study_without_a_sham_says_that_nothing_was_shown(result: Result) -> None:
    outcomes = result.outcomes
    kept = [arm for arm in outcomes.attrs["arms"] if arm["role"] != "sham"]
    without = outcomes.sel(arm=[arm["name"] for arm in kept]).assign_attrs(arms=kept)
    assert any("No sham was run" in note for note in Result(without).summary.notes)
    assert any("exactly 0" in note for note in result.summary.notes)


def test_horizons_count_steps_since_the_fork(result: Result) -> None:
    fork_at = facts_of(result.outcomes).fork_at
    np.testing.assert_array_equal(
        result.outcomes["horizon"], result.outcomes["step"].values - fork_at
    )
    assert {effect.horizon for effect in result.effects} == set(
        result.outcomes["horizon"].values.tolist()
    )


def test_the_dataframe_has_a_row_for_each_effect(result: Result) -> None:
    outcomes: xr.Dataset = result.outcomes
    frame = result.effects.to_dataframe()
    expected = all_effects(outcomes, default_metrics(outcomes))
    assert len(frame) == len(expected)
    assert frame["estimate"].tolist() == [effect.estimate.value for effect in expected]
    one = result.effects.select(arm=expected[0].arm, metric="tv", horizon=expected[0].horizon)
    assert [str(effect) for effect in one] == [str(expected[0])]


def test_a_picture_is_shown_in_a_notebook_by_itself(result: Result) -> None:
    shown: Any = result.plot()
    assert shown._repr_png_().startswith(b"\x89PNG")


def test_what_a_notebook_shows_is_short_and_whole(result: Result) -> None:
    effects: Any = result.effects
    shown = effects._repr_html_()
    assert shown.count("<tr>") == 1 + len(effects)
    assert len(repr(effects[0])) < 150
    assert effects[0]._repr_html_().count("<p") == 1


def test_in_a_notebook_names_are_escaped() -> None:
    outcomes = make_outcomes(num_seeds=3, num_inputs=4)
    arms = [
        {**arm, "name": "<b>x" if arm["name"] == "reset-moments" else arm["name"],
         "null_of": "<b>x" if arm["null_of"] == "reset-moments" else arm["null_of"]}
        for arm in outcomes.attrs["arms"]
    ]  # fmt: skip
    hostile = outcomes.assign_coords(arm=[arm["name"] for arm in arms]).assign_attrs(arms=arms)
    page = Result(hostile)._repr_html_()
    assert "&lt;b&gt;x" in page
    assert "<b>x" not in page


def test_a_missing_store_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        load(tmp_path / "none")
    with pytest.raises(StoreError, match="no finished study"):
        load(tmp_path)
