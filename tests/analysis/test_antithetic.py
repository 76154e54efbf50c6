"""Antithetic pairs: the response to a change of known form is split into its odd and even part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from tests.helpers.study_recipes import at, classifier, one

from bygones.analysis.antithetic import antithetic, opposites
from bygones.analysis.effects import all_effects, default_metrics
from bygones.analysis.metrics import METRICS
from bygones.core.errors import DesignError
from bygones.core.study_facts import ArmFacts, Redraw, StudyFacts, facts_of
from bygones.publish.report.evidence import gather
from bygones.publish.verdicts import readings
from bygones.study.design import Arm, Study, opposite_arm
from bygones.study.design_json import design_to_json, study_from_json
from bygones.study.measure import measure
from bygones.training.interventions import Kick, Nudge, Reset, Scale
from bygones.training.run import Run
from bygones.training.treatment import Treatment


def responses(
    odd: np.ndarray, even: np.ndarray, noise: np.ndarray, redraw: Redraw = ""
) -> xr.Dataset:
    """A classifier of one input whose NLL is a baseline of its own in each seed, plus odd and even parts.

    `odd`, `even`: (R,), of the first arm; `noise`: (R, 3), of control, arm and opposite.
    """
    R = len(odd)
    nll = 0.5 + noise + np.stack([np.zeros(R), odd + even, even - odd], axis=1)
    logits = np.stack([np.zeros_like(nll), np.log(np.expm1(nll))], axis=-1)  # −log p(0) = nll
    arms = (
        ArmFacts("control", "control"),
        ArmFacts("kick", "treated", sentence="kicking moments at step 3", redraw=redraw),
        ArmFacts("opposite of kick", "treated", sentence="", opposite_of="kick", redraw=redraw),
    )
    return xr.Dataset(
        {
            "logits": (("seed", "arm", "step", "input", "class"), logits[:, :, None, None, :]),
            "labels": (("input",), np.array([0])),
            "diverged_at": (("seed", "arm"), np.full((R, 3), np.nan)),
        },
        coords={"seed": range(R), "arm": [arm.name for arm in arms], "step": [10]},
        attrs=StudyFacts(arms, 3).to_dict(),
    )


def test_parts_are_those_that_were_planted():
    rng = np.random.default_rng(0)
    odd, even = 0.1 + 0.01 * rng.standard_normal(8), 0.02 + 0.01 * rng.standard_normal(8)
    found = antithetic(responses(odd, even, np.zeros((8, 3))), "kick", step=10, metric="nll")
    assert found.odd.value == pytest.approx(odd.mean(), rel=1e-9)
    assert found.even.value == pytest.approx(even.mean(), rel=1e-9)
    assert found.effect.value == pytest.approx((odd + even).mean(), rel=1e-9)
    assert found.horizon == 7
    assert "the linear response of negative log-likelihood is" in str(found)


def test_where_arms_have_drifted_apart_the_half_difference_has_a_quarter_of_the_variance():
    rng = np.random.default_rng(1)
    constant, noise = np.full(4000, 0.1), 0.05 * rng.standard_normal((4000, 3))
    found = antithetic(responses(constant, 0.0 * constant, noise), "kick", step=10, metric="nll")
    assert found.seeds_spared == pytest.approx(4.0, rel=0.1)
    assert abs(found.odd.value - 0.1) < 0.004


def test_of_a_random_direction_the_even_part_is_the_effect_without_the_odd_one_as_noise():
    rng = np.random.default_rng(2)
    odd, even = 0.1 * rng.standard_normal(400), 0.02 + 0.01 * rng.standard_normal(400)
    outcomes = responses(odd, even, np.zeros((400, 3)), redraw="null")
    found = antithetic(outcomes, "kick", step=10, metric="nll")
    assert found.is_random
    assert found.seeds_spared is not None
    assert found.seeds_spared > 50
    assert found.even.covers(0.02)
    assert found.even.high - found.even.low < 0.1 * (found.effect.high - found.effect.low)
    assert "even part, which is the effect of a change in a random direction" in str(found)


def test_a_distance_and_an_arm_without_an_opposite_are_refused():
    outcomes = responses(np.ones(4), np.ones(4), np.zeros((4, 3)))
    with pytest.raises(DesignError, match="cannot be seen in a distance"):
        antithetic(outcomes, "kick", step=10, metric="tv")
    with pytest.raises(DesignError, match="has no opposite in this study"):
        antithetic(outcomes, "opposite of kick", step=10, metric="nll")


def test_opposites_are_exact_to_first_order_and_the_same_direction():
    run = Run(classifier, 0)
    run.advance(4)
    before = run.snapshot()
    for rule in (Nudge(0.01), Nudge(0.01, draw=2), Scale(0.9), Kick({"0.weight": 0.01})):
        arm = one("x", rule, at(4), "weights")
        moved: list[np.ndarray] = []
        for each in (arm, opposite_arm(arm)):
            run.restore(before)
            start = run.sources["weights"].capture()["0.weight"].double().numpy()
            run.intervene(each.treatments)
            moved.append(run.sources["weights"].capture()["0.weight"].double().numpy() - start)
        assert np.abs(moved[0]).max() > 1e-4
        np.testing.assert_allclose(moved[1], -moved[0], atol=1e-7)


@pytest.mark.parametrize("rule", [Reset(), Scale(1.0)])
def test_what_has_no_sign_has_no_opposite(rule: Reset | Scale):
    with pytest.raises(DesignError, match="has no sign"):
        opposite_arm(one("x", rule, at(4)))


def test_a_study_of_pairs_is_measured_reported_and_written_down():
    nudge, dose = one("nudge", Nudge(0.05), at(4), "weights"), one("dose", Scale(0.5), at(4))
    arms = [nudge, opposite_arm(nudge), dose, opposite_arm(dose)]
    study = Study(classifier, arms, fork_at=4, horizons=(0, 5), seeds=range(3), name="pairs")
    outcomes = measure(study)
    assert opposites(outcomes) == [("nudge", "opposite of nudge"), ("dose", "opposite of dose")]
    again = study_from_json(design_to_json(study), [], [0])
    assert [arm.opposite_of for arm in again.arms] == ["", "nudge", "", "dose"]
    found = antithetic(outcomes, "nudge", step=9, metric="nll")
    assert found.is_random  # and so both draws of each sign are averaged:
    score = METRICS["nll"]
    nll = {
        arm: np.array([score(run, outcomes["labels"].values) for run in _log_p(outcomes, arm)])
        for arm in outcomes["arm"].values
    }
    draws = ["nudge", "opposite of nudge", "null of nudge", "null of opposite of nudge"]
    even = np.mean([nll[name] for name in draws], axis=0) - nll["control"]
    assert found.even.value == pytest.approx(even.mean(), rel=1e-9)
    effects = all_effects(outcomes, default_metrics(outcomes))
    evidence = gather(outcomes, effects, readings(effects, "tv"))
    assert [(one.arm, one.metric) for one in evidence.antithetic] == [
        (arm, metric) for arm in ("nudge", "dose") for metric in ("accuracy", "nll")
    ]


def _log_p(outcomes: xr.Dataset, arm: str) -> np.ndarray:
    from scipy.special import log_softmax

    return log_softmax(outcomes["logits"].sel(arm=arm, step=9).values.astype(float), axis=-1)


def test_an_opposite_needs_its_arm():
    nudge = one("nudge", Nudge(0.05), at(4), "weights")
    study = Study(classifier, [nudge], fork_at=4, horizons=(5,))
    with pytest.raises(DesignError, match="is not in the study"):
        replace(study, arms=(opposite_arm(nudge),))
    assert (
        facts_of(measure(replace(study, seeds=(0,)))).to_dict()["arms"][2].get("opposite_of")
        is None
    )
    assert Arm("x", Treatment("weights", Nudge(0.1), at(4))).opposite_of == ""
