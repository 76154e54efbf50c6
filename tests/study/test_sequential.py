"""Seeds are added until the anytime-valid interval is narrow enough, and no further."""

import pytest

from bygones import Arm, MemoryStore, Recipe, Reset, Study, Treatment, Values, Window
from bygones.analysis.effects import all_effects
from bygones.analysis.estimators import confidence_sequence
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.publish.bundle import derived
from bygones.publish.checklist import checklist
from bygones.publish.report import write_report
from bygones.store.outcomes import read_manifest, read_outcomes
from bygones.study.sequential import anytime_estimates, measure_until
from bygones.zoo.worlds import heavy_ball


def study() -> Study:
    return Study(
        Recipe.of(heavy_ball.recipe, lr=0.05),
        [Arm("reset", Treatment("moments", Reset(), Window(5, 6)))],
        fork_at=5,
        horizons=(0, 4),
        seeds=range(3),
        probe=Values(),
    )


def half_width(outcomes) -> float:
    found = anytime_estimates(outcomes)["reset"]
    return (found.high - found.low) / 2


@pytest.mark.long
def test_it_stops_as_soon_as_the_interval_is_narrow_enough():
    store = MemoryStore()
    wanted = half_width(measure_until(study(), 1e-9, store=store, max_seeds=12)) * 1.0001
    seeds_seen: list[tuple[int, ...]] = []
    outcomes = measure_until(
        study(),
        wanted,
        store=store,
        batch=1,
        max_seeds=40,
        on_batch=lambda p: seeds_seen.append(p.study.seeds),
    )
    assert half_width(outcomes) <= wanted
    assert seeds_seen[-1] == tuple(range(len(seeds_seen[-1])))
    assert half_width(outcomes.isel(seed=slice(0, -1))) > wanted  # one seed fewer was not enough


def test_it_stops_at_the_most_seeds_and_keeps_to_the_batches():
    sizes: list[int] = []
    outcomes = measure_until(
        study(), 1e-9, batch=4, max_seeds=9, on_batch=lambda p: sizes.append(len(p.study.seeds))
    )
    assert sizes == [3, 7, 9]
    assert outcomes.sizes["seed"] == 9


@pytest.mark.parametrize(
    "settings",
    [{"half_width": 0}, {"half_width": 1, "batch": 0}, {"half_width": 1, "max_seeds": 2}],
)
def test_what_makes_no_sense_is_refused(settings):
    with pytest.raises(DesignError):
        measure_until(study(), **settings)


@pytest.fixture(scope="module")
def stopped():
    """A study that stopped at its third batch, and its store."""
    store = MemoryStore()
    outcomes = measure_until(study(), 1e-9, store=store, batch=4, max_seeds=9)
    return outcomes, store


def test_the_outcomes_record_the_rule_and_the_batches(stopped):
    outcomes, store = stopped
    stopping = facts_of(outcomes).stopping
    assert stopping is not None
    assert (stopping.half_width, stopping.max_seeds, stopping.reached) == (1e-9, 9, False)
    assert stopping.batches == ((0, 1, 2), (3, 4, 5, 6), (7, 8))
    manifest = read_manifest(store)
    assert facts_of(read_outcomes(store, manifest)).stopping == stopping
    told = derived.study_of(manifest)
    assert told["stopping"] == stopping.to_dict()
    assert told["interval"] == "confidence_sequence"


def test_a_rule_that_was_met_says_so():
    outcomes = measure_until(study(), 1e9, batch=4, max_seeds=20)
    stopping = facts_of(outcomes).stopping
    assert stopping is not None
    assert stopping.reached
    assert len(stopping.batches[0]) == 3
    assert "within ± 1e+09 (reached)" in str(stopping)


def test_every_interval_of_a_stopped_study_is_the_anytime_valid_one(stopped):
    outcomes, _ = stopped
    found = [e for e in all_effects(outcomes, ["rms"]) if e.horizon == 4]
    (excess,) = anytime_estimates(outcomes).values()
    assert found[0].excess == excess  # one interval for one excess
    methods = {found[0].estimate.method, found[0].null.method, found[0].excess.method}  # pyright: ignore
    assert methods == {"anytime-valid t"}
    assert found[0].fraction is not None
    assert found[0].fraction.method == "anytime-valid jackknife"
    # Seeds that were fixed beforehand take the default rule.
    fixed = outcomes.assign_attrs(interval="by_skewness", stopping=None)
    assert all_effects(fixed, ["rms"])[-1].estimate.method != confidence_sequence([1.0, 2.0]).method


def test_the_report_and_the_checklist_say_the_rule(stopped, tmp_path):
    outcomes, _ = stopped
    page = write_report(outcomes, tmp_path).read_text()
    assert "Seeds were added until an interval was narrow enough" in page
    assert "batches of 3, 4, 2" in page
    assert "Anytime-valid t, at 95%" in page
    assert "paired t" not in page
    filled = {item["item"]: item["answer"] for item in checklist(outcomes)["items"]}
    assert "Batches: 0–2; 3–6; 7–8." in filled["Seeds and unit"]
    assert "Anytime-valid t" in filled["Interval method"]
