"""Seeds are added until the anytime-valid interval is narrow enough, and no further."""

import pytest

from bygones import Arm, MemoryStore, Recipe, Reset, Study, Treatment, Values, Window
from bygones.core.errors import DesignError
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
