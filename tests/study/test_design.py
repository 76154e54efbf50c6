"""What a study refuses, each in one clear sentence, before anything is trained; and what it adds."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import at, classifier, one, plain, small

import bygones
from bygones.cli.load import load_study
from bygones.cli.values import parse_seeds
from bygones.core.errors import DesignError, UnknownName
from bygones.core.importing import current_address, load_object
from bygones.core.values import Window
from bygones.study.design import Arm, Study, add_reference_arms, check_design, design_findings
from bygones.study.design_json import design_to_json
from bygones.study.plan import plan
from bygones.training.interventions import (
    AbstractIntervention,
    Carry,
    Hold,
    Kick,
    MatchedNull,
    Nudge,
    Permute,
    Replace,
    Reseed,
    Reset,
    Scale,
    Sham,
    SwapWindows,
    Transplant,
)
from bygones.training.orders import ShuffleOnce
from bygones.training.probes import Values
from bygones.training.recipe import Parts, Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment, check_pair, matched_null
from bygones.zoo.regimes import digits
from bygones.zoo.worlds import heavy_ball

ARM = one("reset", Reset(), at(4))


def design(**changes: Any) -> Study:
    usual = {"recipe": classifier, "arms": [ARM], "fork_at": 4, "horizons": (0, 3), "seeds": (0, 1)}
    return Study(**{**usual, **changes})


def is_one_sentence(error: BaseException) -> bool:
    text = str(error)
    return "\n" not in text and text.rstrip("'\")")[-1] in ".?" and "Traceback" not in text


# ------------------------------------------------------------------ refused as it is written


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fork_at": -1}, "fork_at is a step, 0 or later; got -1"),
        ({"fork_at": 4.0}, "fork_at must be a whole number; got 4.0"),
        ({"fork_at": "4"}, "fork_at must be a whole number"),
        ({"horizons": ()}, "at least one horizon"),
        ({"horizons": (-2, 0)}, "a horizon lies before the fork: -2"),
        ({"horizons": (3, 0)}, "must ascend without repeats"),
        ({"horizons": (0, 3, 3)}, "must ascend without repeats"),
        ({"horizons": (0, 2.5)}, "a horizon must be a whole number; got 2.5"),
        ({"seeds": ()}, r"needs seeds; got none. Try seeds=range\(8\)"),
        ({"seeds": (0, 1, 0, 2, 2)}, r"\[0, 2\] come more than once"),
        ({"seeds": (0, -3)}, "0 or more; got -3"),
        ({"seeds": (0.5,)}, "a seed must be a whole number"),
        ({"seeds": ("0",)}, "a seed must be a whole number"),
        ({"arms": ()}, "at least one arm"),
        ({"arms": [ARM, ARM]}, "arm names must differ .* 'reset' repeats"),
        ({"arms": [one("control", Reset(), at(4))]}, "'control' repeats"),
        ({"arms": [one("sham", Reset(), at(4))]}, "'sham' repeats"),
        ({"arms": [ARM, one("null of reset", Hold(), at(4))]}, "'null of reset' repeats"),
        ({"arms": [Arm("idle")]}, "'idle' has no treatment; the control is added by itself"),
        (
            {"arms": [one("early", Reset(), at(3))]},
            "'early' treats moments at step 3, outside the run",
        ),
        (
            {"arms": [one("late", Reset(), at(8))]},
            "step 8, outside the run.*last horizon at step 7",
        ),
        ({"arms": [one("long", Hold(), Window(4, 9))]}, "steps 4–8, outside the run"),
        ({"arms": [Arm("twice", [*ARM.treatments] * 2)]}, "'twice' has one treatment twice"),
    ],
    ids=str,
)
def test_designs_that_are_refused_as_they_are_written(changes, words):
    with pytest.raises(DesignError, match=words) as caught:
        design(**changes)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("start", "stop"), [(3, 3), (4, 3), (-1, 3), (0, 0), (1.0, 2), (None, 2)], ids=str
)
def test_windows_that_are_refused(start, stop):
    with pytest.raises(DesignError) as caught:
        Window(start, stop)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize("window", [at(4), at(7), Window(4, 8)], ids=str)
def test_windows_may_reach_from_the_fork_to_the_last_horizon(window):
    design(arms=[one("hold", Hold(), window)])


def test_numpys_numbers_are_numbers():
    """They differ from Python's in digests and in JSON, so a study would silently be another one."""
    mine = design(fork_at=np.int64(4), horizons=np.array([0, 3]), seeds=np.arange(2))
    assert (mine.fork_at, mine.horizons, mine.seeds) == (4, (0, 3), (0, 1))
    assert {type(number) for number in (mine.fork_at, *mine.horizons, *mine.seeds)} == {int}
    assert mine.digest() == design().digest()
    three: Any = np.int64(3)
    four: Any = np.int32(4)
    assert Window(three, four) == Window(3, 4)
    assert type(Window(three, four).start) is int


# ------------------------------------------------------------------ refused when the run is known


@pytest.fixture(scope="module")
def trained() -> Run:
    run = Run(classifier, 0)
    run.advance(2)
    return run


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        (
            Treatment("momments", Reset(), at(4)),
            "no memory source called 'momments'; did you mean 'moments'",
        ),
        (Treatment("averages", Reset(), at(4)), "no memory source called 'averages'"),
        (Treatment("", Reset(), at(4)), "no memory source called ''"),
        (
            Treatment("weights", SwapWindows(), Window(4, 6)),
            "'swap-windows' cannot be applied to 'weights': ",
        ),
        (
            Treatment("moments", Reseed(), at(4)),
            "'reseed' cannot be applied to 'moments': nothing is drawn",
        ),
        (
            Treatment("order", Scale(0.5), at(4)),
            "'scale' cannot be applied to 'order': .* no arrays of floats",
        ),
        (Treatment("order", Nudge(0.1), at(4)), "'nudge' cannot be applied to 'order'"),
        (
            Treatment("streams", Kick({"dropout": 1.0}), at(4)),
            "'kick' cannot be applied to 'streams'",
        ),
        (Treatment("streams", Permute(), at(4)), "'permute' cannot be applied to 'streams'"),
        (Treatment("streams", Reset(), at(4)), "'streams' cannot be reset: .* Use reseed"),
        (Treatment("order", SwapWindows(), Window(4, 7)), "length must be even; got 3 steps"),
        (
            Treatment("weights", Transplant(), Window(4, 6)),
            "transplant acts at one boundary.* steps 4–5",
        ),
        (
            Treatment("order", MatchedNull(of=Hold()), at(4)),
            "'matched-null' cannot be applied to 'order'",
        ),
        (
            Treatment("weights", MatchedNull(of=Reseed()), at(4)),
            "'reseed' cannot be applied to 'weights'",
        ),
        (
            Treatment("moments", Reset(), at(4), leaves="*/exp_agv*"),
            r"no leaf of moments matches '\*/exp_agv",
        ),
        (Treatment("weights", Hold(), at(4), leaves=""), "no leaf of weights matches ''"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_treatments_that_are_refused_in_this_run(treatment, words, trained):
    study = design(arms=[Arm("wrong", treatment)])
    with pytest.raises(DesignError, match=words) as caught:
        check_design(study, trained)
    assert is_one_sentence(caught.value)
    with pytest.raises(DesignError, match=words):
        plan(study)


@pytest.mark.parametrize(
    ("source", "intervention", "words"),
    [
        ("weights", Kick({"0.wieght": 1.0}), "did you mean '0.weight'"),
        ("scheduler", Replace({"lr": 1.0}), "no leaf of scheduler called 'lr'"),
        ("order", Replace({"polcy": ShuffleOnce(24, 4)}), "did you mean 'policy'"),
    ],
)
def test_names_of_leaves_that_an_intervention_carries_are_checked(
    source, intervention, words, trained
):
    """At the latest where it acts; then as one sentence."""
    study = design(arms=[Arm("wrong", Treatment(source, intervention, at(4)))])
    run = Run(classifier, 0)
    with pytest.raises(UnknownName, match=words) as caught:
        run.advance(6, study.arms[0].treatments)
    assert is_one_sentence(caught.value)


def test_a_recipe_without_what_the_probe_needs_is_refused_when_planned():
    from bygones.core.errors import RecipeError

    with pytest.raises(RecipeError, match="gives no probe_set"):
        plan(design(recipe=blind))


def blind(seed: int) -> Parts:
    parts = classifier(seed)
    parts.probe_set = None
    return parts


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("tests.helpers.study_recipes:clasifier", "has no 'clasifier'. It has: .*classifier"),
        ("tests.nowhere:recipe", "cannot import 'tests.nowhere'"),
        ("nonsense", "is not an address; expected package.module:function"),
        ("no/such/file.py:recipe", "there is no file"),
    ],
)
def test_recipes_that_cannot_be_found(recipe, words):
    with pytest.raises(DesignError, match=words) as caught:
        plan(design(recipe=recipe))
    assert is_one_sentence(caught.value)


def test_a_recipe_that_workers_could_not_find_is_refused():
    with pytest.raises(DesignError, match="at the top level of a module"):
        design(recipe=lambda seed: classifier(seed))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("digit", "no regime called 'digit'; did you mean 'digits'"),
        ("nowhere.py", "there is no file 'nowhere.py'"),
        ("tests.helpers.study_recipes:TRAINED", "raised TypeError"),
        ("tests.helpers.study_recipes:pool", "must return a bygones.Study; it returned a dict"),
        ("tests.helpers.study_recipes:smal", "has no 'smal'"),
    ],
)
def test_studies_that_cannot_be_found(text, words):
    from bygones.core.errors import BygonesError

    with pytest.raises(BygonesError, match=words) as caught:
        load_study(text)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("5-5", (5,)), ("3, 1-2", (3, 1, 2)), ("007", (7,))],
)
def test_seeds_as_they_are_typed(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["", " ", "a", "1,", ",1", "-1", "1-", "3-1", "1.5", "0-3-5", "²", "٣", "1 2", "0x1"]
)
def test_seeds_that_are_none(text):
    with pytest.raises(DesignError) as caught:
        parse_seeds(text)
    assert is_one_sentence(caught.value)


# ------------------------------------------------------------------ what is added


def test_control_and_sham_are_added_and_nulls_follow_their_arms(trained):
    arms = add_reference_arms(
        small(("reset", "give", "several", "swap", "redraw", "once")).arms, trained
    )
    assert [(arm.name, arm.role, arm.null_of) for arm in arms] == [
        ("control", "control", None),
        ("sham", "sham", None),
        ("reset", "treated", None),
        ("null of reset", "null", "reset"),
        ("give", "treated", None),
        ("null of give", "null", "give"),
        ("several", "treated", None),
        ("null of several", "null", "several"),
        ("swap", "treated", None),
        ("null of swap", "null", "swap"),
        ("redraw", "treated", None),
        ("null of redraw", "null", "redraw"),
        ("once", "treated", None),
        ("null of once", "null", "once"),
    ]
    assert arms[0].treatments == ()


def test_the_sham_goes_through_the_motions_of_every_arm(trained):
    study = small(("hold", "several", "swap"))
    sham = add_reference_arms(study.arms, trained)[1]
    assert all(isinstance(t.intervention, Sham) for t in sham.treatments)
    moved = {(t.source, s) for arm in study.arms for t in arm.treatments for s in _steps(t.window)}
    assert moved <= {(t.source, s) for t in sham.treatments for s in _steps(t.window)}
    assert {t.source for t in sham.treatments} == {source for source, _ in moved}


def _steps(window: Window) -> range:
    return range(window.start, window.stop)


NULLS: list[tuple[str, AbstractIntervention, Window, AbstractIntervention | None]] = [
    ("moments", Reset(), at(4), MatchedNull(Reset())),
    ("moments", Hold(), Window(4, 6), MatchedNull(Hold())),
    ("moments", Permute(), at(4), MatchedNull(Permute())),
    ("moments", Transplant(), at(4), MatchedNull(Transplant())),
    ("order", SwapWindows(), Window(4, 6), Permute()),
    ("order", Permute(), Window(4, 6), Permute(draw=1)),
    ("order", Permute(draw=3), Window(4, 6), Permute(draw=4)),
    ("order", Hold(), Window(4, 6), Reseed(draw=1)),
    ("order", Reseed(), at(4), Reseed(draw=1)),
    ("streams", Reseed(draw=2), at(4), Reseed(draw=3)),
    ("streams", Hold(), at(4), Reseed(draw=1)),
    ("weights", Carry(), at(4), None),
    ("weights", Sham(), at(4), None),
    ("weights", MatchedNull(Reset()), at(4), None),
]


@pytest.mark.parametrize(("source", "intervention", "window", "null"), NULLS, ids=str)
def test_matched_nulls(source, intervention, window, null, trained):
    treatment = Treatment(source, intervention, window, "*")
    if isinstance(null, MatchedNull) and window.length > 1:
        null = dataclasses.replace(null, against=(treatment,))
    matched = matched_null(treatment, trained.sources[source])
    assert (matched and matched.intervention) == null
    if matched is not None:
        assert (matched.source, matched.window, matched.leaves) == (source, window, "*")
        check_pair(matched, trained.sources[source])


def test_no_null_is_added_to_an_arm_of_which_one_part_has_none(trained):
    arm = Arm("both", [*ARM.treatments, Treatment("weights", Carry(), at(5))])
    assert [a.name for a in add_reference_arms([arm], trained)] == [
        "control",
        "sham",
        "both",
    ]


# ------------------------------------------------------------------ findings


def test_a_window_much_longer_than_the_memory_is_said_once_for_all_its_arms(trained):
    arms = [
        one("hold", Hold(), Window(4, 40), "order"),
        one("swap", SwapWindows(), Window(4, 40), "order"),
        one("short", Hold(), Window(4, 6), "order"),
    ]
    (finding,) = design_findings(design(arms=arms, horizons=(50,)), trained)
    assert finding.startswith("Window longer than the memory: order is treated over 36 steps")
    assert finding.endswith("Arms: 'hold', 'swap'.")


def test_following_for_less_than_the_memory_lasts_is_said(trained):
    (finding,) = design_findings(
        design(horizons=(0, 3)), trained
    )  # Adam's 0.999 lasts a thousand steps
    assert finding.startswith(
        "Followed for less than the memory lasts: moments has a lifetime of e-fold"
    )
    assert "observed for 3 steps" in finding


def test_a_study_that_suits_its_memory_has_no_findings():
    run = Run(plain, 0)
    run.advance(2)
    arms = [
        one("reset", Reset(), at(4)),
        one("hold", Hold(), Window(4, 30)),
        one("w", Scale(0.5), at(4), "weights"),
    ]
    assert design_findings(design(recipe=plain, arms=arms, horizons=(0, 40)), run) == []


# ------------------------------------------------------------------ values that compare and travel


def test_studies_are_values():
    assert design() == design()
    assert design() != design(fork_at=3)
    assert pickle.loads(pickle.dumps(design())) == design()
    with pytest.raises(dataclasses.FrozenInstanceError):
        design().fork_at = 3  # type: ignore[misc]


def test_the_digest_of_a_study_is_that_of_its_design_and_not_of_its_seeds():
    assert design().digest() == design(seeds=(5,), name="other").digest()
    others = [
        design(fork_at=3),
        design(horizons=(0, 4)),
        design(probe=Values()),
        design(recipe=plain),
        design(recipe=Recipe.of(classifier, lr=0.1)),
        design(arms=[one("reset", Reset(), at(5))]),
        design(arms=[one("other", Reset(), at(4))]),
    ]
    digests = {design().digest(), *(other.digest() for other in others)}
    assert len(digests) == 1 + len(others)


def test_with_seeds_changes_the_seeds_alone():
    assert design().with_seeds([7, 8]) == design(seeds=(7, 8))
    with pytest.raises(DesignError):
        design().with_seeds([])


def test_kicks_of_equal_arrays_have_equal_digests():
    kicks = [
        Treatment("weights", Kick({"w": make([1.0, 2.0])}), at(4)) for make in (np.array, np.array)
    ]
    assert kicks[0].digest() == kicks[1].digest()
    other = Treatment("weights", Kick({"w": torch.tensor([1.0, 2.5])}), at(4))
    assert other.digest() != kicks[0].digest()


# ------------------------------------------------------------------ written down


def test_what_bygones_publishes_is_written_by_its_public_name():
    arms = [
        one("reset", Reset(), at(4)),
        one("kick", Kick({"w": np.arange(3.0)}), at(4)),
        one("null", MatchedNull(Scale(0.5)), at(4)),
    ]
    written = json.dumps(design_to_json(design(arms=arms, probe=Values())))
    names = set(re.findall(r'"name": "([^"]*:[^"]*)"', written))
    assert names == {
        "bygones:Reset", "bygones:Kick", "bygones:MatchedNull", "bygones:Scale", "bygones:Values",
        "tests.helpers.study_recipes:classifier",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("bygones.interventions.matched_null:MatchedNull", "MatchedNull"),
        ("bygones.probes.carrier:Carrier", "Carrier"),
        ("bygones.orders.reshuffle:Reshuffle", "Reshuffle"),
        ("bygones.multiplicity:Family", "Family"),
        ("bygones.values:Window", "Window"),
        ("bygones.treatment:Treatment", "Treatment"),
        ("bygones.recipe:Recipe", "Recipe"),
    ],
)
def test_addresses_of_earlier_versions_are_found_where_they_lie_now(former: str, name: str):
    assert load_object(current_address(former)) is getattr(bygones, name)


def test_addresses_of_built_in_runs_of_earlier_versions_are_found():
    assert load_object(current_address("bygones.regimes.digits:recipe")) is digits.recipe
    assert load_object(current_address("bygones.worlds.heavy_ball:recipe")) is heavy_ball.recipe
    assert current_address("bygones_like.regimes:recipe") == "bygones_like.regimes:recipe"


def test_a_study_and_its_plan_are_shown_short() -> None:
    study = small(("reset", "hold"))
    planned: Any = plan(study)
    assert repr(study) == "<Study small: 2 seeds, 2 arms, fork at step 4, horizons 0, 1, 3, 7>"
    assert "left to train" in repr(planned)
    assert len(repr(planned)) < 120
    shown: Any = study
    assert shown._repr_html_().count("<tr>") == 1 + len(study.arms)
    assert planned._repr_html_().count("<tr>") == 1 + len(planned.facts.sources)
