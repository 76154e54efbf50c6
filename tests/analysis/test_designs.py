"""Which design pays: closed forms, and the seeds that a planted study really takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from bygones.analysis.designs import Costs, best_siblings, compare_designs, how_to_tell
from bygones.analysis.power import half_width, pairs_for_half_width
from bygones.analysis.repeats import VarianceComponents, repeats, variance_components
from bygones.core.errors import DesignError
from bygones.core.study_facts import ArmFacts, RepeatFacts, StudyFacts

R = 400


def repeated(between: float, within: float, told: tuple[RepeatFacts, ...]) -> xr.Dataset:
    """A study of values: its arm lies 10 + b_s + w_sk from the control, b and w normal with these spreads."""
    rng = np.random.default_rng(3)
    shared = 10.0 + between * rng.standard_normal((R, 1))
    moved = shared + within * rng.standard_normal((R, len(told)))
    outcomes = xr.Dataset(coords={"seed": np.arange(R), "arm": ["control", "reset"], "step": [5]})
    for k in range(len(told)):
        values = np.stack([np.zeros(R), moved[:, k]], axis=1)[:, :, None, None, None]
        outcomes[f"values@{k}" if k else "values"] = (
            ("seed", "arm", "step", "input", "class"),
            values,
        )
    arms = (ArmFacts("control", "control"), ArmFacts("reset", "treated", sentence="resetting"))
    facts = StudyFacts(arms, 0, repeats=told if len(told) > 1 else ())
    return outcomes.assign_attrs(facts.to_dict())


SIBLINGS = tuple(RepeatFacts(0, k) for k in range(4))
FORKS = tuple(RepeatFacts(10 * k, 0) for k in range(4))


@pytest.mark.parametrize("told", [SIBLINGS, FORKS])
def test_components_are_those_that_were_planted(told: tuple[RepeatFacts, ...]):
    outcomes = repeated(0.5, 1.0, told)
    numbers = np.stack([one["values"].values[:, 1, 0, 0, 0] for one in repeats(outcomes)], axis=1)
    parts = variance_components(numbers + 7.0 * np.arange(4) * (told is FORKS), told)
    assert parts is not None
    assert parts.between == pytest.approx(0.25, rel=0.25)
    assert parts.within == pytest.approx(1.0, rel=0.1)
    assert parts.seeds_spared == pytest.approx(1.25 / 0.5, rel=0.15)


def test_components_that_are_estimated_are_unbiased():
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        numbers = 0.5 * rng.standard_normal((5, 1)) + rng.standard_normal((5, 3))
        parts = variance_components(numbers, SIBLINGS[:3])
        assert parts is not None
        found.append((parts.within, numbers.mean(axis=1).var(ddof=1)))
    within, of_means = np.mean(found, axis=0)
    assert within == pytest.approx(1.0, abs=0.04)
    assert of_means == pytest.approx(0.25 + 1.0 / 3.0, abs=0.04)


def test_the_cheapest_number_of_siblings_is_the_textbooks():
    for past, between in ((900, 1.0), (3000, 1.0), (900, 0.2)):
        parts = VarianceComponents(between=between, within=4.0, siblings=2, forks=(0,))
        r, _ = best_siblings(parts, Costs(past, 100), target=0.05)  # many seeds: t is the normal's
        assert abs(r - math.sqrt(4.0 / between * past / 100)) < 1.0
    nothing = VarianceComponents(between=1.0, within=0.0, siblings=2, forks=(0,))
    assert best_siblings(nothing, Costs(900, 100), 0.2)[0] == 1


def test_rows_say_the_seeds_that_each_design_takes():
    costs = Costs(past=300, after=40)
    rows = {d.name: d for d in compare_designs(repeated(0.5, 1.0, SIBLINGS), costs, num_seeds=32)}
    as_it_is = rows.pop("as it is")
    assert (as_it_is.seeds, as_it_is.steps) == (32, 32 * 340)
    assert as_it_is.half_width == pytest.approx(half_width(32, math.sqrt(1.25)), rel=0.1)
    ((name, found),) = rows.items()
    r = int(name.split()[0])
    assert r > 1
    assert found.seeds == pytest.approx(
        pairs_for_half_width(half_width(32, math.sqrt(1.25)), math.sqrt(0.25 + 1.0 / r)), abs=2
    )
    assert found.steps == found.seeds * (300 + 40 * r) < as_it_is.steps


def test_forks_say_their_estimand_and_count_the_trajectory_between_them():
    rows = {
        d.name: d for d in compare_designs(repeated(0.5, 1.0, FORKS), Costs(300, 40), num_seeds=32)
    }
    four = rows["4 forks, 10 steps apart"]
    assert four.estimand == "mean over fork times"
    assert four.steps == four.seeds * (300 + 4 * 40 + 3 * 10)
    assert 8 <= four.seeds < rows["2 forks, 10 steps apart"].seeds < 32


def test_what_these_seeds_cannot_tell_is_left_out_and_said():
    plain = repeated(0.5, 1.0, SIBLINGS[:1])
    assert [d.name for d in compare_designs(plain, Costs(300, 40))] == ["as it is"]
    assert "--siblings 2" in how_to_tell(plain)
    assert "--siblings" not in how_to_tell(repeated(0.5, 1.0, SIBLINGS))
    with pytest.raises(DesignError, match="three stored seeds"):
        compare_designs(plain.isel(seed=[0, 1]), Costs(300, 40))
