"""Arms that are themselves random changes: all draws are used, and none of them is a matched null."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from tests.helpers.study_recipes import classifier

from bygones.analysis.arms import Arms
from bygones.analysis.effects import all_effects, effect, effect_per_seed, per_seed
from bygones.analysis.equivalence import equivalent_effect
from bygones.analysis.multiplicity import p_value
from bygones.core.errors import DesignError
from bygones.core.study_facts import ArmFacts, Redraw, StudyFacts
from bygones.core.values import Window
from bygones.publish.verdicts import readings
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.study.sequential import judged_pairs
from bygones.training.interventions import Nudge, Permute, Reseed, Reset, SwapWindows
from bygones.training.orders import Reshuffle, Sequential
from bygones.training.run import Run
from bygones.training.treatment import Treatment, redraw_of


def draws_of_one_law(rng: np.random.Generator, num_seeds: int = 16, redraw: Redraw = "control"):
    """A study whose control, arm and other draw are three draws of one law, given the seed's past."""
    R, N = num_seeds, 24
    # How far the draws of a seed are apart differs between seeds, as it does in networks.
    spread = np.exp(0.4 * rng.standard_normal((R, 1, 1, 1)))
    values = rng.standard_normal((R, 1, N, 1)) + 0.2 * spread * rng.standard_normal((R, 3, N, 1))
    arms = (
        ArmFacts("control", "control"),
        ArmFacts("order", "treated", sentence="re-drawing order at step 3", redraw=redraw),
        ArmFacts("null of order", "null", "order", "another draw"),
    )
    return xr.Dataset(
        {
            "values": (("seed", "arm", "step", "input", "output"), values[:, :, None]),
            "diverged_at": (("seed", "arm"), np.full((R, 3), np.nan)),
        },
        coords={"seed": range(R), "arm": [arm.name for arm in arms], "step": [10]},
        attrs=StudyFacts(arms, 3).to_dict(),
    )


def test_the_effect_is_the_mean_over_all_pairs_of_draws():
    outcomes = draws_of_one_law(np.random.default_rng(0))
    apart = [
        per_seed(outcomes, "rms", one, other).values[:, 0]
        for one, other in (
            ("order", "control"), ("null of order", "control"), ("order", "null of order"),
        )
    ]  # fmt: skip
    found = effect(outcomes, "order", 10, "rms")
    assert found.estimate.value == pytest.approx(np.mean(apart), rel=1e-12)
    np.testing.assert_allclose(
        effect_per_seed(outcomes, "rms", "order").values[:, 0], np.mean(apart, 0)
    )
    np.testing.assert_allclose(judged_pairs(outcomes)["order"], np.mean(apart, 0))
    two = effect(draws_of_one_law(np.random.default_rng(0), redraw="null"), "order", 10, "rms")
    assert two.estimate.value == pytest.approx(np.mean(apart[:2]), rel=1e-12)
    assert (found.num_draws, two.num_draws) == (3, 2)
    one = effect(draws_of_one_law(np.random.default_rng(0), redraw=""), "order", 10, "rms")
    assert one.estimate.value == pytest.approx(np.mean(apart[0]), rel=1e-12)


def test_all_pairs_are_worth_more_seeds_and_estimate_the_same():
    """Same mean; a variance that many fewer seeds would have had; intervals that cover."""
    kinds: tuple[Redraw, ...] = ("", "control")
    means: dict[str, list[float]] = {kind: [] for kind in kinds}
    ceilings: dict[str, list[float]] = {kind: [] for kind in kinds}
    truth = []
    for study in range(300):
        for redraw in kinds:
            found = effect(
                draws_of_one_law(np.random.default_rng(study), redraw=redraw), "order", 10, "rms"
            )
            means[redraw].append(found.estimate.value)
            assert found.ceiling is not None
            ceilings[redraw].append(found.ceiling.value)
            if redraw:
                truth.append(found.estimate)
    expected = np.mean(means[""] + means["control"])
    hits = np.mean([found.covers(expected) for found in truth])
    error = np.std(means[""]) / np.sqrt(300)
    assert abs(np.mean(means["control"]) - np.mean(means[""])) < 3 * error
    assert np.var(means["control"]) < 0.97 * np.var(means[""])
    assert np.var(ceilings["control"]) < np.var(ceilings[""])
    assert 0.91 < hits < 0.98


def test_a_random_change_has_no_null_no_excess_and_no_p_value():
    outcomes = draws_of_one_law(np.random.default_rng(1))
    found = effect(outcomes, "order", 10, "rms")
    assert (found.null, found.excess, p_value(found)) == (None, None, None)
    assert "it is itself a random change, so another draw of it is no reference" in str(found)
    assert "each pair the mean of 3 distances between draws" in str(found)
    assert "cannot be told" not in str(found)
    (reading,) = readings(all_effects(outcomes, ["rms"]), "rms")
    assert (reading.kind, reading.rest) == ("redraw", "is itself a random change")
    with pytest.raises(DesignError, match="it is itself a random change"):
        equivalent_effect(outcomes, "order", 10, 0.1, "rms", over_null=True)


def test_a_null_of_another_size_is_not_called_matched():
    outcomes = draws_of_one_law(np.random.default_rng(2), redraw="")
    arms = list(Arms.of(outcomes).all)
    for ratio, matched in (((0.98, 1.03), True), ((0.98, 4.6), False), ((0.5, 1.0), False)):
        told = [*arms[:2], replace(arms[2], null_ratio=ratio)]
        outcomes.attrs = StudyFacts(tuple(told), 3).to_dict()
        found = effect(outcomes, "order", 10, "rms")
        assert (found.null is not None) == matched
        if not matched:
            assert "its random kick is no matched null: it moved the sources" in str(found)
            assert "its matched null (" not in str(found)


@pytest.mark.parametrize(
    ("source", "rule", "start", "expected"),
    [
        ("order", Reseed(), 6, "control"),  # six batches an epoch
        ("order", Reseed(), 7, "null"),
        ("streams", Reseed(), 7, "control"),
        ("order", Permute(), 6, "null"),
        ("order", SwapWindows(), 6, ""),
        ("moments", Nudge(0.1), 6, "null"),
        ("moments", Permute(), 6, ""),
        ("moments", Reset(), 6, ""),
    ],
)
def test_which_draws_are_alike(source: str, rule, start: int, expected: str):
    run = Run(classifier, 0)
    assert run.parts.order.steps_per_epoch == 6
    treatment = Treatment(source, rule, Window(start, start + 2))
    assert redraw_of(treatment, run.sources[source]) == expected


def test_an_order_that_was_not_drawn_is_not_alike():
    assert Reshuffle(12, 3).redraw_period == 4
    assert Sequential(12, 3).redraw_period == 0


def test_random_changes_are_left_out_of_the_default_family():
    arms = [
        Arm("order", Treatment("order", Reseed(), Window(6, 7))),
        Arm("reset", Treatment("moments", Reset(), Window(6, 7))),
        Arm("nudge", Treatment("weights", Nudge(1e-3), Window(6, 7))),
    ]
    study = Study(classifier, arms, 6, (4,), seeds=(0, 1, 2))
    assert study.declared.arms == ("reset",)
    found = {one.arm: one for one in all_effects(measure(study), ["tv"])}
    assert [found[name].num_draws for name in ("order", "reset", "nudge")] == [3, 1, 2]
    assert found["nudge"].estimate.value > 0
