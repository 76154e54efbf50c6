"""Seeds that take their steps together: each comes to what it would come to by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import lane_recipes
from tests.helpers.lane_recipes import LANED

from bygones.core.digest import same_bits
from bygones.core.errors import DesignError, OutOfMemory, RecipeError
from bygones.core.values import Window
from bygones.store import FolderStore, MemoryStore
from bygones.study.design import Arm, Study
from bygones.study.executors import Processes
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.study.segment import run_seeds
from bygones.training.interventions import (
    Hold,
    Nudge,
    Replace,
    Reseed,
    Reset,
    Scale,
    SwapWindows,
    Transplant,
)
from bygones.training.lanes import BatchedRuns, NotBatchable, make_runner
from bygones.training.lanes.lane_width import (
    TOLERANCE,
    Choice,
    Timer,
    candidate_widths,
    choose_lanes,
    measure_seconds,
)
from bygones.training.leaves import to_float64
from bygones.training.orders import ShuffleOnce
from bygones.training.probes import Logits
from bygones.training.recipe import Recipe
from bygones.training.run import Run, Snapshot
from bygones.training.treatment import Treatment

SEEDS = (0, 1, 2)


def apart(one: Snapshot, other: Snapshot) -> float:
    """The largest distance between two snapshots' arrays of floats, as a share of the array's norm."""
    worst = 0.0
    for source, state in one.states.items():
        assert state.keys() == other.states[source].keys()
        for name, leaf in state.items():
            there = other.states[source][name]
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                size = float(np.linalg.norm(to_float64(there))) or 1.0
                worst = max(
                    worst, float(np.linalg.norm(to_float64(leaf) - to_float64(there))) / size
                )
            else:
                assert same_bits(leaf, there), f"{source}/{name}"
    return worst


def steps_take(alone: float, together: float) -> Timer:
    """A timer that gives the seconds of a step of one run, and of one of runs that take it together."""
    return lambda advance, runs: alone if len(runs) == 1 else together


LANES_PAY = steps_take(1.0, 1.0)  # a step of many is as fast as a step of one


def chosen(recipe: Any, seeds: Sequence[int], *, timer: Timer = LANES_PAY, **asked: Any) -> Choice:
    return choose_lanes(Recipe.of(recipe), seeds, Logits(), timer=timer, **asked)


def lanes_of(recipe: Any, seeds: Sequence[int] = SEEDS, width: int = 8) -> BatchedRuns:
    return BatchedRuns([Run(recipe, seed) for seed in seeds], width)


@pytest.mark.parametrize("name", LANED)
def test_a_lane_is_the_single_run(name: str) -> None:
    lanes = lanes_of(LANED[name])
    lanes.advance(3)
    lanes.advance(9)
    for seed, run in zip(SEEDS, lanes.runs, strict=True):
        alone = Run(LANED[name], seed)
        alone.advance(9)
        assert apart(run.snapshot(), alone.snapshot()) <= TOLERANCE
        assert run.losses == pytest.approx(alone.losses, rel=1e-5)
        assert run.batch_chain == alone.batch_chain
        assert run.parts.cursor.ids_chain == alone.parts.cursor.ids_chain


@pytest.mark.parametrize("name", LANED)
def test_a_lane_does_not_know_its_neighbours(name: str) -> None:
    there, elsewhere = lanes_of(LANED[name], (0, 1, 2)), lanes_of(LANED[name], (5, 2, 7, 0))
    there.advance(6)
    elsewhere.advance(6)
    for seed, place in ((0, 3), (2, 1)):
        assert there.runs[seed].snapshot().digest() == elsewhere.runs[place].snapshot().digest()


def test_lanes_leave_the_global_generators_alone() -> None:
    before = torch.default_generator.get_state()
    lanes_of(lane_recipes.dataset).advance(3)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_a_run_can_leave_its_lanes_and_go_on_alone() -> None:
    lanes = lanes_of(lane_recipes.sgd)
    lanes.advance(4)
    run, twin = lanes.runs[1], Run(lane_recipes.sgd, 5)
    twin.restore(run.snapshot())
    run.advance(7)
    twin.advance(7)
    assert run.snapshot().digest() == twin.snapshot().digest()


def test_a_snapshot_is_not_reached_by_later_steps() -> None:
    lanes = lanes_of(lane_recipes.adamw)
    lanes.advance(3)
    kept = [run.snapshot() for run in lanes.runs]
    before = [snapshot.digest() for snapshot in kept]
    for _ in range(2):  # taken from the lanes, and put back into them
        lanes.advance(6)
        for run, snapshot in zip(lanes.runs, kept, strict=True):
            run.restore(snapshot)
    lanes.advance(6)
    assert [snapshot.digest() for snapshot in kept] == before


def test_a_lane_that_diverges_stops_where_it_would_alone_and_harms_nobody() -> None:
    lanes = lanes_of(lane_recipes.explosive, (1, 2, 3))
    lanes.advance(8)
    for seed, run in zip((1, 2, 3), lanes.runs, strict=True):
        alone = Run(lane_recipes.explosive, seed)
        alone.advance(8)
        assert run.diverged_at == alone.diverged_at
        assert np.array_equal(np.isfinite(run.losses), np.isfinite(alone.losses))
        assert (run.diverged_at is None) == (seed != 2)
        assert run.snapshot().step == 8
        assert (
            apart(run.snapshot(), alone.snapshot()) <= TOLERANCE
        )  # what diverged stayed as it was


def test_all_lanes_may_diverge() -> None:
    lanes, alone = lanes_of(lane_recipes.explosive, (2,)), Run(lane_recipes.explosive, 2)
    for until in (8, 10):
        lanes.advance(until)
        alone.advance(until)
    assert lanes.runs[0].diverged_at == alone.diverged_at is not None
    assert lanes.runs[0].snapshot().step == 10


def test_the_first_lane_may_be_the_one_that_diverges() -> None:
    """The first lane leads: its schedule is stepped for all."""
    lanes = lanes_of(lane_recipes.explosive, (2, 4))
    lanes.advance(8)
    alone = Run(lane_recipes.explosive, 4)
    alone.advance(8)
    assert apart(lanes.runs[1].snapshot(), alone.snapshot()) <= TOLERANCE


def test_lanes_that_differ_in_their_settings_are_told_so() -> None:
    with pytest.raises(
        NotBatchable, match="seeds 0 and 1 differ in schedule or in an optimizer's settings"
    ):
        lanes_of(lane_recipes.with_own_rate).advance(1)


def test_lanes_whose_optimizers_have_counted_differently_are_told_so() -> None:
    lanes = lanes_of(lane_recipes.adamw)
    lanes.advance(2)
    moments = lanes.runs[1].sources["moments"]
    state = moments.capture()
    moments.restore({n: leaf + 1 if n.endswith("/step") else leaf for n, leaf in state.items()})
    with pytest.raises(NotBatchable, match="their optimizers differ in 'step'"):
        lanes.advance(3)


def test_what_a_reset_empties_is_empty_in_the_stack_too() -> None:
    """A new SGD has no momentum at all: the first gradient after it counts whole."""
    reset = [Treatment("moments", Reset(), Window(3, 4))]
    lanes, alone = lanes_of(lane_recipes.sgd), Run(lane_recipes.sgd, 0)
    lanes.advance(6, reset)
    alone.advance(6, reset)
    assert apart(lanes.runs[0].snapshot(), alone.snapshot()) <= TOLERANCE


# ------------------------------------------------------------------ a study in lanes

_CHOICES: dict[Any, Choice] = {}


@pytest.fixture(autouse=True)
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study tries the lanes that it is asked for; once for each recipe and width will do for all tests."""

    def choose(recipe: Recipe, seeds: Any, probe: Any, *, asked: Any, **more: Any) -> Choice:
        if (recipe, asked) not in _CHOICES:
            _CHOICES[recipe, asked] = choose_lanes(recipe, seeds, probe, asked=asked, **more)
        return _CHOICES[recipe, asked]

    monkeypatch.setattr("bygones.study.plan.choose_lanes", choose)


at = Window(4, 5)
ARMS = (
    Arm("reset moments", Treatment("moments", Reset(), at)),
    Arm("keep the step", Treatment("moments", Scale(0.0), at, leaves="*/exp_avg*")),
    Arm("hold moments", Treatment("moments", Hold(), Window(4, 7), leaves="*/exp_avg")),
    Arm("transplant", Treatment("moments", Transplant(), Window(5, 6))),
    Arm("reset batchnorm", Treatment("batchnorm", Reset(), at)),
    Arm("reset the schedule", Treatment("scheduler", Reset(), at)),
    Arm("reset the average", Treatment("averages", Reset(), at)),
    Arm("swap windows", Treatment("order", SwapWindows(), Window(4, 8))),
    Arm(
        "another policy", Treatment("order", Replace({"policy": ShuffleOnce(26, 4)}), Window(4, 6))
    ),
    Arm("re-draw the order", Treatment("order", Reseed(), at)),
    Arm("nudge", Treatment("weights", Nudge(1e-2), at)),
)


def a_study(seeds: Sequence[int] = range(5), arms: Sequence[Arm] = ARMS[2:4]) -> Study:
    return Study(lane_recipes.adamw, arms, fork_at=4, horizons=(0, 1, 6), seeds=seeds)


@pytest.mark.long
def test_a_study_in_lanes_finds_what_single_runs_find() -> None:
    study = a_study(arms=ARMS)
    alone, together = measure(study), measure(study, lanes=8)
    assert np.allclose(together.logits, alone.logits, rtol=0, atol=1e-4)
    assert np.allclose(together.train_loss, alone.train_loss, rtol=0, atol=1e-4)
    moved = np.abs(together.logits - together.sel(arm="control").logits).max(
        ("seed", "step", "input", "class")
    )
    unseen = "reset the average"  # which is no part of the model
    assert (moved.sel(arm=[arm.name for arm in ARMS if arm.name != unseen]) > 1e-4).all()
    assert together.attrs["contract"]["lanes"] == 8


def test_the_sham_is_exactly_zero_in_lanes() -> None:
    outcomes = measure(a_study(), lanes=8)
    assert np.array_equal(outcomes.sel(arm="sham").logits, outcomes.sel(arm="control").logits)


@pytest.mark.long
def test_seeds_come_to_the_same_bits_whoever_trains_beside_them(tmp_path: Any) -> None:
    whole = measure(a_study(range(9)), lanes=8)
    store = FolderStore(tmp_path / "store")
    measure(a_study([7]), store, Processes(1), lanes=8)
    grown = measure(a_study([2, 7, 0]), store, lanes=8)
    for seed in (0, 2, 7):
        assert np.array_equal(grown.sel(seed=seed).logits, whole.sel(seed=seed).logits)


@pytest.mark.long
def test_what_is_left_of_a_study_is_trained_in_lanes_of_seeds_that_lack_the_same() -> None:
    store, study = MemoryStore(), a_study(range(4))
    fewer = Study(lane_recipes.adamw, ARMS[3:4], fork_at=4, horizons=(0, 2), seeds=[0, 3])
    measure(fewer, store, lanes=8)
    planned = plan(study, store, lanes=8)
    assert sum(run_seeds(job) for job in planned.jobs()) == planned.steps_left - 4 * 5  # the donors
    outcomes = measure(study, store, lanes=8)
    assert np.array_equal(outcomes.logits, measure(study, lanes=8).logits)


def test_lanes_and_single_runs_share_nothing_in_a_store() -> None:
    store = MemoryStore()
    measure(a_study([0, 1]), store, lanes=1)
    assert plan(a_study([0, 1]), store, lanes=8).steps_left > 0
    assert plan(a_study([0, 1]), store, lanes=1).steps_left == 0


# ------------------------------------------------------------------ whether it pays


def test_lanes_are_chosen_where_they_pay() -> None:
    choice = chosen(lane_recipes.sgd, range(16), timer=steps_take(1.0, 4.0))
    assert choice.lanes == 16
    assert choice.why.startswith("16 seeds take each step together, 4 times as fast as one by one")
    assert (choice.seconds_a_step, choice.seconds_alone) == (0.25, 1.0)
    assert choice.difference is not None
    assert choice.difference <= TOLERANCE


def test_lanes_that_do_not_pay_are_declined_unless_asked_for() -> None:
    dear = steps_take(1.0, 7.5)
    choice = chosen(lane_recipes.sgd, range(8), timer=dear)
    assert choice.lanes == 1
    assert "8 in one step would be 1.1 times as fast here, which is not worth" in choice.why
    assert (choice.seconds_a_step, choice.seconds_alone) == (1.0, 1.0)
    assert chosen(lane_recipes.sgd, range(8), timer=dear, asked=8).lanes == 8


def test_empty_lanes_and_rounds_of_workers_count_in_what_is_gained() -> None:
    """Nine seeds in lanes of eight are two rounds: as long as sixteen, or as one round of two workers."""
    for workers, gain in ((1, "4.5"), (2, "5")):
        choice = chosen(lane_recipes.sgd, range(9), asked=8, workers=workers)
        assert f"together, {gain} times as fast" in choice.why, choice.why


def test_every_worker_is_left_a_job() -> None:
    assert chosen(lane_recipes.sgd, range(16), workers=2).lanes == 8


def test_a_step_is_timed_where_the_runs_are_and_leaves_them_there() -> None:
    run = Run(lane_recipes.sgd, 0)
    run.advance(2)
    before = run.snapshot().digest()
    seconds = measure_seconds(lambda: run.advance(run.step + 6), [run])
    assert seconds > 0
    assert run.snapshot().digest() == before


@pytest.mark.parametrize(
    ("num_seeds", "workers", "widths"),
    [(32, 2, (16,)), (32, 1, (16,)), (16, 2, (8,)), (12, 2, (4, 8)), (6, 2, (4, 8))],
)
def test_as_wide_as_leaves_every_worker_a_job(num_seeds: int, workers: int, widths: Any) -> None:
    assert candidate_widths(num_seeds, workers, "cpu") == widths


class Slanted(BatchedRuns):
    """Lanes in which it matters a little where a run lies: all widths, or up to `up_to`."""

    up_to = 1024

    def advance(self, *given: Any, **more: Any) -> None:
        super().advance(*given, **more)
        for place, run in enumerate(self.runs if self.width <= self.up_to else ()):
            with torch.no_grad():
                next(run.parts.model.parameters()).mul_(1 + 1e-7 * place)


class SlantedInFour(Slanted):
    """As on a processor whose vector registers are wider than four numbers."""

    up_to = 4


def test_where_four_are_refused_eight_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bygones.training.lanes.lane_width.BatchedRuns", SlantedInFour)
    assert chosen(lane_recipes.sgd, range(8), asked=4).lanes == 1
    assert chosen(lane_recipes.sgd, range(8), workers=2).lanes == 8


def test_where_the_narrowest_are_taken_no_wider_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    class Noted(BatchedRuns):
        def __init__(self, runs: Sequence[Run], width: int) -> None:
            tried.append(width)
            super().__init__(runs, width)

    monkeypatch.setattr("bygones.training.lanes.lane_width.BatchedRuns", Noted)
    monkeypatch.setattr("bygones.training.lanes.lane_width.WIDTHS", (16, 8))
    assert chosen(lane_recipes.sgd, range(8), workers=2).lanes == 8
    assert set(tried) == {8}


def test_few_seeds_are_trained_one_by_one() -> None:
    choice = chosen(lane_recipes.sgd, range(5))
    assert (choice.lanes, choice.why) == (
        1,
        "Seeds are trained one by one: 5 are too few for lanes.",
    )


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (
            Recipe.of(lane_recipes.with_own_step),
            "it has a training step of its own (own_step, lane_recipes.py:"
            f"{lane_recipes.own_step.__code__.co_firstlineno})",
        ),
        (Recipe.of(lane_recipes.with_others), "it carries memory of its own (queue)"),
        (Recipe.of(lane_recipes.with_lbfgs), "LBFGS is not known to update each number by itself"),
        (Recipe.of(lane_recipes.with_a_forgotten_layer), "no optimizer has 0.weight"),
        (Recipe.of(lane_recipes.with_own_rate), "seeds 0 and 1 differ in schedule"),
        (Recipe.of(lane_recipes.wilful, way="branches"), "torch cannot batch its forward pass"),
        (Recipe.of(lane_recipes.wilful, way="draws"), "torch cannot batch its forward pass"),
        (Recipe.of(lane_recipes.wilful, way="draws elsewhere"), "after 4 steps lanes are"),
        (Recipe.of(lane_recipes.wilful, way="counts"), "after 4 steps lanes are"),
        (Recipe.of(lane_recipes.idle_bias), "after 4 steps lanes are"),
        (
            Recipe.of(lane_recipes.wilful, way="binds anew"),
            "after 4 steps buffers/seen is not what",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_lanes_is_trained_one_by_one_and_the_reason_said(
    recipe: Recipe, why: str
) -> None:
    choice = chosen(recipe, range(8))
    assert choice.lanes == 1
    assert choice.why.startswith(f"Seeds are trained one by one: {why}"), choice.why
    assert choice.why.endswith(".")


def test_lanes_in_which_the_place_matters_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little: seeds would come to other bits beside other seeds."""
    monkeypatch.setattr("bygones.training.lanes.lane_width.BatchedRuns", Slanted)
    choice = chosen(lane_recipes.sgd, range(8))
    assert choice.lanes == 1
    assert "what a run comes to depends on the lane that it is in" in choice.why


def test_a_later_seed_that_does_not_fit_is_told_so_and_nothing_finished_is_lost() -> None:
    store = MemoryStore()
    at = Window(1, 2)
    arms = [Arm("reset moments", Treatment("moments", Reset(), at))]
    study = Study(lane_recipes.with_odd_tenth, arms, fork_at=1, horizons=(2,), seeds=range(10))
    with pytest.raises(
        RecipeError, match=r"seeds 8, 9 cannot take .* differ in schedule.*with 1 lane"
    ):
        measure(study, store, lanes=8)
    assert plan(study.with_seeds(range(8)), store, lanes=8).steps_left == 0
    assert measure(study, store, lanes=1).sizes["seed"] == 10


def test_a_store_goes_on_as_it_was_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    measure(a_study([0, 1]), store, lanes=8)
    monkeypatch.setattr("bygones.study.plan.choose_lanes", None)  # it is not asked again
    for asked in (None, "auto"):
        planned = plan(a_study([0, 1]), store, lanes=asked)
        assert planned.contract.lanes == 8
        assert planned.steps_left == 0


def test_a_width_that_is_no_number_is_refused() -> None:
    from bygones.cli.values import parse_lanes

    with pytest.raises(DesignError, match="invalid number of lanes 'many'"):
        parse_lanes("many")


def test_the_time_left_counts_rounds_of_workers_and_empty_lanes() -> None:
    store = MemoryStore()
    costs = {"seconds_a_step": 1.0, "seconds_a_look": 0.0}
    alone = replace(plan(a_study(range(3)), store), **costs)
    steps = alone.steps_left / 3
    assert [alone.seconds_left(workers) for workers in (1, 2, 3, 9)] == [
        steps * rounds for rounds in (3, 2, 1, 1)
    ]
    together = replace(plan(a_study(range(9)), store, lanes=8), **costs)
    assert [together.seconds_left(workers) for workers in (1, 2)] == [steps * 16, steps * 8]
    looking = replace(alone, seconds_a_step=0.0, seconds_a_look=1.0)
    # Seeds, arms, horizons; a transplant that has not begun shares the look at its control.
    assert looking.seconds_left(1) == looking.looks_left == 3 * (6 * 3 - 2)
    measure(a_study(range(3)), store)
    assert plan(a_study(range(3)), store).seconds_left(1) == 0


# ------------------------------------------------------------------ a device without room


def with_room_for(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """A device in which so many lanes fit, once a study is trained and not while it is planned."""

    def crowded(runs: Sequence[Run], lanes: int) -> Any:
        if lanes > width:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more.")
        return make_runner(runs, lanes)

    monkeypatch.setattr("bygones.study.segment.make_runner", crowded)


@pytest.mark.long
def test_lanes_that_do_not_fit_are_made_fewer_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_room_for(monkeypatch, 8)
    store, plans = MemoryStore(), []
    outcomes = measure(a_study(range(9)), store, lanes=16, on_plan=plans.append)
    (newer,) = plans
    assert newer.choice.why.startswith(
        "16 seeds in one step did not fit into the device's memory. 8 seeds take each step together"
    )
    assert outcomes.attrs["contract"]["lanes"] == 8
    assert outcomes.attrs["lanes"]["why"] == newer.choice.why
    assert plan(a_study(range(16)), store, lanes="auto").contract.lanes == 8  # remembered
    assert np.array_equal(outcomes.logits, measure(a_study(range(9)), lanes=8).logits)


def test_what_does_not_fit_even_alone_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with_room_for(monkeypatch, 0)
    plans: list[Any] = []
    with pytest.raises(OutOfMemory, match=r"seeds 0 do not .* \(CUDA out .* 2 GiB\)\.") as caught:
        measure(a_study(range(2)), lanes=16, on_plan=plans.append)
    widths = [newer.contract.lanes for newer in plans]
    assert widths[0] == 8  # and four, where the place among four does not matter
    assert widths[-1] == 1
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None  # or the runs that fill the memory could not be freed


def test_a_width_that_cannot_even_be_tried_gives_way_to_a_smaller_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Crowded(BatchedRuns):
        def __init__(self, runs: Sequence[Run], width: int) -> None:
            if width > 8:
                raise torch.OutOfMemoryError
            super().__init__(runs, width)

    monkeypatch.setattr("bygones.training.lanes.lane_width.BatchedRuns", Crowded)
    choice = chosen(lane_recipes.sgd, range(16))
    assert choice.lanes == 8
    assert choice.why.startswith("16 seeds in one step did not fit")


def test_the_command_line_says_that_it_goes_on_with_fewer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from bygones.cli.terminal import progress

    planned = plan(a_study([0]))
    why = "16 seeds in one step did not fit into the device's memory."
    with progress(planned, "a study") as follow:
        assert follow is not None
        follow(replace(planned, choice=replace(planned.choice, why=why)))
    assert f"a study: {why} {planned.steps_left:,} steps to train." in capsys.readouterr().err
