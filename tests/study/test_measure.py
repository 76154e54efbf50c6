"""Studies from beginning to end: exact zeros, equal bits however the work was divided, honest costs."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.helpers import study_recipes
from tests.helpers.study_recipes import TRAINED, WeightSum, at, classifier, one, plain, pool, small

from bygones.cli.terminal import plan_lines
from bygones.core.code_digest import code_digest
from bygones.core.errors import BygonesError, DesignError, ForkError, RecipeError, StoreError
from bygones.core.values import Window
from bygones.store import FolderStore, MemoryStore
from bygones.store.outcomes import read_manifest, read_outcomes, write_manifest
from bygones.study.certificate import certify
from bygones.study.design import Arm, Study
from bygones.study.executors import Processes, Serial
from bygones.study.measure import measure
from bygones.study.other_runs import compared_arm
from bygones.study.plan import Plan, plan
from bygones.study.segment import donor_seed, run_seeds
from bygones.training.fork_check import Certificate, check_fork
from bygones.training.interventions import Hold, Kick, Replace, Reset, Scale, Transplant
from bygones.training.orders import ShuffleOnce
from bygones.training.probes import Values
from bygones.training.recipe import Parts, Recipe
from bygones.training.rewriter import OtherRuns
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball

ALL = tuple(pool())


def same(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Equal to the bit, in every variable and coordinate; one may have merged arms with their control."""
    one, other = (outcomes.drop_vars("equal_from", errors="ignore") for outcomes in (one, other))
    names = one.variables.keys() == other.variables.keys()
    return names and all(
        one[name].shape == other[name].shape and bits(one[name]) == bits(other[name])
        for name in one.variables
    )


def bits(array: xr.DataArray) -> Any:
    if array.dtype.kind == "U":  # names of arms: the longest decides how they are stored
        return array.values.tolist()
    return array.dtype, array.values.tobytes()


def observed(outcomes: xr.Dataset) -> xr.DataArray:
    return outcomes["logits" if "logits" in outcomes else "values"]


def counted(planned: Plan) -> tuple[xr.Dataset, int]:
    """Measures, and counts the steps that training took (the fork check apart)."""
    certify(planned)
    TRAINED["steps"] = 0
    outcomes = measure(planned.study, planned=planned, merge=False)
    return outcomes, TRAINED["steps"]


@pytest.fixture(autouse=True)
def proven_once(monkeypatch):
    """A recipe's fork check and code are asked for by each new store; once will do for all tests."""
    monkeypatch.setattr("bygones.study.certificate.check_fork", _proof)
    monkeypatch.setattr("bygones.core.typed_code.code_digest", _code)


def _proof(recipe: Recipe, at: list[int], until: int, seed: int, device: str) -> Certificate:
    key = (recipe, tuple(at), until, seed, device)
    if key not in _PROOFS:
        _PROOFS[key] = check_fork(recipe, at=at, until=until, seed=seed, device=device)
    return _PROOFS[key]


_code = cache(code_digest)
_PROOFS: dict[Any, Certificate] = {}
_FRESH: dict[Any, xr.Dataset] = {}


def fresh(study: Study) -> xr.Dataset:
    """The study from scratch, in one go, in memory. Kept, since many tests compare with it."""
    key = (study.name, study.digest(), study.seeds)
    if key not in _FRESH:
        _FRESH[key] = measure(study, MemoryStore(), merge=False)
    return _FRESH[key]


@cache
def _filled() -> MemoryStore:
    store = MemoryStore()
    measure(small(ALL), store)
    return store


def filled() -> MemoryStore:
    """A store of one's own that holds all of `small(ALL)`, which is measured once for all tests."""
    store, whole = MemoryStore(), _filled()
    store._objects = dict(whole._objects)
    store._records = {address: dict(records) for address, records in whole._records.items()}
    return store


# ------------------------------------------------------------------ the floor is exactly zero


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sham_is_bitwise_zero_on_the_heavy_ball(momentum):
    arms = [one("scale", Scale(2.0), at(3), "weights"), one("hold", Hold(), Window(5, 9), "order")]
    if momentum:
        arms.append(one("reset", Reset(), at(3)))
    study = Study(
        Recipe.of(heavy_ball.recipe, momentum=momentum),
        arms,
        fork_at=3,
        horizons=(0, 1, 2, 9),
        seeds=range(4),
        probe=Values(),
    )
    seen = observed(measure(study, merge=False))
    for step in seen.step:
        sham, control = (seen.sel(arm=arm, step=step).values for arm in ("sham", "control"))
        assert sham.tobytes() == control.tobytes()
    assert np.any(seen.sel(arm=study.arms[0].name).values != seen.sel(arm="control").values)


def test_sham_is_bitwise_zero_on_the_classifier_and_every_arm_matters():
    outcomes = fresh(small(ALL))
    for name in ("logits", "train_loss"):
        sham, control = (outcomes[name].sel(arm=arm).values for arm in ("sham", "control"))
        assert sham.tobytes() == control.tobytes()
    last = outcomes["logits"].isel(step=-1)
    for arm in ALL:
        assert np.all(np.any(last.sel(arm=arm) != last.sel(arm="control"), axis=(1, 2))), arm


def _states(study: Study, treatments: Any) -> Any:
    """The states of an arm of seed 3 after its treatments, trained anew to each boundary."""

    def at(step: int) -> Any:
        other, found = Run(study.recipe, 3), {}

        def take(run: Run) -> None:
            found.update({run.step: run.snapshot().states})

        other.advance(step + 1, treatments, at_boundary=take)
        return found[step]

    return at


def test_outcomes_are_those_of_a_plain_loop():
    """Each arm trained on its own from step 0, without trees, stores or snapshots."""
    study = small(ALL, seeds=(3,))
    outcomes = fresh(study)
    planned = plan(study)
    for arm in planned.arms:
        with planned.contract.in_force():
            run, donor = Run(study.recipe, 3), Run(study.recipe, donor_seed(3))
            looked = []

            def look(run: Run, looked: list[np.ndarray] = looked) -> None:
                if run.step in study.steps:
                    looked.append(run.observe(study.probe))

            def give(step: int, donor: Run = donor) -> Any:
                donor.advance(step)
                return donor.snapshot().states

            others = OtherRuns(
                give, _states(study, ()), _states(study, compared_arm(arm.treatments))
            )
            run.advance(study.end, arm.treatments, others=others, at_boundary=look)
            run.intervene(arm.treatments, others)
            look(run)
        mine = outcomes.sel(seed=3, arm=arm.name)
        assert np.stack(looked).tobytes() == mine["logits"].values.tobytes(), arm.name
        assert (
            np.asarray(run.losses, np.float32).tobytes() == mine["train_loss"].values.tobytes()
        ), arm.name


# ------------------------------------------------------------------ however the work is divided


def test_processes_give_the_same_bits_as_serial(tmp_path):
    """Of an arm that diverges, too."""
    explode = Arm("explode", Treatment("weights", EXPLODE, at(6)))
    study = replace(small(ALL, seeds=(0, 1, 2)), arms=[*pool().values(), explode])
    outcomes = measure(study, FolderStore(tmp_path), Processes(2))
    assert np.isfinite(outcomes["diverged_at"].sel(arm="explode")).all()
    assert same(outcomes, fresh(study))


def test_a_store_in_memory_is_refused_by_other_processes():
    with pytest.raises(StoreError, match="FolderStore"):
        measure(small(("reset",)), MemoryStore(), Processes(1))


class Stopped(Exception):
    """What an impatient test does to a run."""


class Impatient(MemoryStore):
    """A store that stops the run at its n-th write (objects and records count alike)."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.patience = patience

    def _spend(self) -> None:
        self.patience -= 1
        if self.patience < 0:
            raise Stopped

    def put(self, content: bytes) -> str:
        self._spend()
        return super().put(content)

    def write_record(self, address: str, name: str, record: dict[str, Any]) -> None:
        self._spend()
        super().write_record(address, name, record)


@pytest.mark.parametrize("arms", [("reset", "several", "give"), ("once", "once and more")])
@pytest.mark.parametrize("patience", [2, 5, 9, 17, 28])
def test_an_interrupted_run_goes_on_to_the_same_bits(arms, patience):
    study = small(arms)
    store = Impatient(patience)
    with pytest.raises(Stopped):
        measure(study, store)
    store.patience = math.inf
    assert same(measure(study, store), fresh(study))


def test_a_run_interrupted_at_every_third_write_gets_there_in_the_end():
    """Each attempt gets three writes further: enough for one segment, so the run must creep on."""
    study = small(("once", "once and more"), seeds=(0,))
    store, attempts = Impatient(3), 0
    while True:
        try:
            outcomes = measure(study, store)
            break
        except Stopped:
            store.patience = 3
            attempts += 1
            assert attempts < 60
    assert attempts > 9
    assert same(outcomes, fresh(study))


@pytest.mark.parametrize("seed", range(4))
def test_any_half_of_the_store_may_be_lost(seed):
    study, store = small(ALL), filled()
    rng = np.random.default_rng(seed)
    if seed % 2:
        for digest in list(store._objects):
            if rng.random() < 0.5:
                del store._objects[digest]
    else:
        for records in store._records.values():
            for name in list(records):
                if rng.random() < 0.5:
                    del records[name]
    outcomes, steps = counted(planned := plan(study, store))
    assert same(outcomes, fresh(study))
    assert steps == planned.steps_left > 0


@pytest.mark.parametrize("keep", ["snapshots", "observations"])
def test_all_of_one_kind_of_object_may_be_lost(keep):
    """Without any snapshot, or without any observation, a longer run is made again to the same bits."""
    store = filled()
    for records in store._records.values():
        for record in map(study_recipes.read_json, records.values()):
            gone = "observed" if keep == "snapshots" else "snapshot"
            if record.get(gone):
                store._objects.pop(record[gone], None)
    longer = small(ALL, horizons=(0, 1, 3, 7, 9))
    assert same(measure(longer, store), fresh(longer))


# ------------------------------------------------------------------ growing a study


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"horizons": (0, 1, 3, 7)}, {"horizons": (0, 1, 2, 3, 7)}),
        ({"horizons": (0, 7)}, {"horizons": (0, 1, 3, 5, 7)}),
        ({"horizons": (3, 5)}, {"horizons": (0, 3, 4, 5, 12)}),
        ({"horizons": (0, 1, 7)}, {"horizons": (0, 1, 7, 8, 20)}),
        ({"horizons": (5,)}, {"horizons": (12,)}),
        ({"horizons": (0, 1, 3, 12)}, {"horizons": (1, 6)}),
        ({"seeds": (0,)}, {"seeds": (5, 0, 2)}),
        ({"seeds": (0, 1, 2)}, {"seeds": (1,)}),
        ({"arms": ("reset",)}, {"arms": ("hold", "reset", "several")}),
        ({"arms": ("hold",)}, {"arms": ("several", "once and more", "hold")}),
        ({"arms": ("several", "hold")}, {"arms": ("several",)}),
        ({"arms": ("once and more", "once")}, {"arms": ("once", "give")}),
        ({"arms": ("once and more",), "horizons": (5,)}, {"arms": ("once and more", "once")}),
        ({"arms": ("once",), "horizons": (5, 6)}, {"arms": ("once",), "horizons": (5, 6, 11)}),
        ({"arms": ("reset",), "seeds": (0,)}, {"arms": ("reset", "swap"), "seeds": (0, 1)}),
        ({"fork_at": 4}, {"fork_at": 2}),
        ({"fork_at": 1, "horizons": (8, 10)}, {"fork_at": 4}),
        ({"probe": None}, {"probe": WeightSum()}),
        ({"probe": WeightSum()}, {"probe": WeightSum(2.0)}),
        ({"name": "one"}, {"name": "another"}),
    ],
    ids=str,
)
def test_a_grown_study_is_bit_equal_to_one_from_scratch(before, after):
    store = MemoryStore()
    usual: dict[str, Any] = {"horizons": (5, 7), "seeds": (0,)}
    measure(small(**{**usual, **before}), store)
    study = small(**{**usual, **after})
    outcomes, steps = counted(planned := plan(study, store))
    assert same(outcomes, fresh(study))
    assert steps == planned.steps_left
    assert planned.steps_left < planned.steps_shared
    assert counted(plan(study, store))[1] == 0


@pytest.mark.parametrize(
    "order", [pytest.param((0, 1, 2, 3, 4), marks=pytest.mark.long), (2, 4, 3, 1, 0)]
)
def test_a_study_grown_in_any_order_gives_the_same_bits(order):
    """Five cuts of one design into one store, then the whole of it."""
    cuts: list[dict[str, Any]] = [
        {"arms": ("several", "give"), "horizons": (5, 6)},
        {"arms": ("hold", "once and more"), "horizons": (0, 12)},
        {"arms": ("several", "hold", "swap"), "horizons": (7, 8)},
        {"arms": ("reset",), "horizons": (20,)},
        {"arms": ("hold batchnorm", "several"), "horizons": (5,), "probe": WeightSum()},
    ]
    store = MemoryStore()
    for cut in order:
        study = small(**cuts[cut], seeds=(0,))
        assert same(measure(study, store), fresh(study))
    whole = small(ALL, horizons=(0, 3, 5, 6, 12, 20), seeds=(0,))
    outcomes, steps = counted(planned := plan(whole, store))
    assert same(outcomes, fresh(whole))
    assert steps == planned.steps_left


def test_added_seeds_cost_exactly_their_own_steps():
    store = MemoryStore()
    measure(small(seeds=(0, 1)), store)
    planned = plan(small(seeds=(0, 1, 2)), store)
    assert planned.steps_left * 3 == planned.steps_shared
    assert counted(planned)[1] == planned.steps_left


def test_an_added_arm_costs_only_what_it_does_not_share():
    store = MemoryStore()
    measure(small(("reset",)), store)
    planned = plan(small(("reset", "redraw")), store)
    assert planned.steps_left == 2 * 3 * 7  # from the fork on: the arm, its null, and a wider sham
    assert counted(planned)[1] == planned.steps_left


def test_an_added_last_horizon_costs_only_what_lies_beyond():
    store = MemoryStore()
    measure(small(horizons=(0, 7)), store)
    planned = plan(small(horizons=(0, 7, 9)), store)
    assert planned.steps_left == 2 * 2 * 10  # two seeds, two steps, ten arms with their nulls
    assert counted(planned)[1] == planned.steps_left


@pytest.mark.parametrize("arms", [("give",), ("give", "reset"), ("give", "early", "late")])
def test_planned_steps_are_the_steps_that_are_trained_with_donors_too(arms):
    extra = {
        "early": one("early", Transplant(), at(4)),
        "late": Arm(
            "late",
            [Treatment("moments", Reset(), at(5)), Treatment("weights", Transplant(), at(9))],
        ),
    }
    chosen = [{**pool(), **extra}[name] for name in arms]
    store = MemoryStore()
    study = Study(classifier, chosen, fork_at=4, horizons=(0, 7), seeds=(0, 1))
    planned = plan(study, store)
    assert planned.steps_left == planned.steps_shared
    outcomes, steps = counted(planned)
    assert steps == planned.steps_left
    longer = Study(classifier, chosen, fork_at=4, horizons=(0, 7, 9), seeds=(0, 1))
    outcomes, steps = counted(planned := plan(longer, store))
    assert steps == planned.steps_left
    assert same(outcomes, fresh(longer))


def test_progress_counts_to_the_end():
    store = MemoryStore()
    measure(small(("reset",)), store)
    planned = plan(small(), store)
    assert planned.steps_done() == 0
    measure(planned.study, planned=planned)
    assert planned.steps_done() == planned.steps_left > 0


def test_a_study_of_no_steps_is_observed_all_the_same():
    study = Study(
        classifier,
        [one("kick", Scale(2.0), at(0), "weights")],
        fork_at=0,
        horizons=(0,),
        seeds=(0, 1),
    )
    outcomes, steps = counted(plan(study))
    assert steps == 0
    seen = outcomes["logits"]
    assert not np.array_equal(seen.sel(arm="kick"), seen.sel(arm="control"))
    assert np.array_equal(seen.sel(arm="sham"), seen.sel(arm="control"))


# ------------------------------------------------------------------ treatments that are cut


def test_a_window_that_another_arm_cuts_is_held_to_its_entry():
    """`hold` runs over 4..8; `several` leaves it at 6, so its window spans three segments."""
    study = small(("hold", "several"), seeds=(0,))
    store = MemoryStore()
    together = measure(study, store)
    alone = measure(small(("hold",), seeds=(0,)), MemoryStore())
    for name in ("logits", "train_loss"):
        one, other = (o[name].sel(arm=["hold", "null of hold"]).values for o in (together, alone))
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("source", ["moments", "order", "batchnorm"])
def test_a_run_may_end_inside_a_window_and_be_continued(source):
    arms = [one("held", Hold(), Window(4, 9), source)]
    store = MemoryStore()
    settings: dict[str, Any] = {"recipe": classifier, "fork_at": 4, "seeds": (0,)}
    measure(Study(arms=arms, horizons=(4,), **settings), store)  # ends at 8: within the window
    study = Study(arms=arms, horizons=(4, 6, 9), **settings)
    outcomes, steps = counted(planned := plan(study, store))
    assert same(outcomes, fresh(study))
    assert steps == planned.steps_left < planned.steps_shared


def test_a_replaced_order_policy_is_known_when_its_window_is_resumed():
    policy = {"policy": ShuffleOnce(study_recipes.NUM_EXAMPLES, study_recipes.BATCH_SIZE)}
    arms = [one("once", Replace(policy), Window(4, 9), "order")]
    settings: dict[str, Any] = {"recipe": classifier, "arms": arms, "fork_at": 4, "seeds": (0,)}
    store = MemoryStore()
    measure(Study(horizons=(4,), **settings), store)
    study = Study(horizons=(4, 9), **settings)
    assert same(measure(study, store), fresh(study))


def test_two_treatments_of_one_boundary_act_in_the_order_in_which_they_are_written():
    """Scaling then kicking is not kicking then scaling, also where both arms share a past."""
    kick = Treatment("weights", Kick({"0.weight": np.ones((6, 5))}), at(6))
    scale = Treatment("weights", Scale(0.5), at(6))
    reset = Treatment("moments", Reset(), at(4))
    arms = [Arm("kick first", [reset, kick, scale]), Arm("scale first", [reset, scale, kick])]
    study = Study(classifier, arms, fork_at=4, horizons=(2, 5), seeds=(0,))
    seen = observed(measure(study))
    assert not np.array_equal(seen.sel(arm="kick first"), seen.sel(arm="scale first"))
    alone = observed(measure(Study(classifier, arms[1:], fork_at=4, horizons=(2, 5), seeds=(0,))))
    assert np.array_equal(seen.sel(arm="scale first"), alone.sel(arm="scale first"))


def test_transplants_bring_the_donors_state_and_no_other_seeds():
    study = Study(
        plain,
        [Arm("give", [Treatment(s, Transplant(), at(5)) for s in ("weights", "moments", "order")])],
        fork_at=5,
        horizons=(0, 4),
        seeds=(0, 1),
    )
    seen = observed(measure(study))
    for seed in study.seeds:
        donor = Run(study.recipe, donor_seed(seed))
        for step in study.steps:
            donor.advance(step)
            assert np.array_equal(
                seen.sel(seed=seed, arm="give", step=step), donor.observe(study.probe)
            )
    assert donor_seed(0) != donor_seed(1)
    assert not {donor_seed(seed) for seed in range(100)} & set(range(1 << 20))


# ------------------------------------------------------------------ runs that diverge


INFINITE = Kick({"weight": np.full((3, 5), np.inf)})
EXPLODE = Kick({"0.weight": np.full((6, 5), np.inf)})  # the same for the classifier


def test_a_diverged_arm_is_recorded_and_harms_no_other(tmp_path):
    arms = [
        Arm("explode", Treatment("weights", INFINITE, at(6))),
        one("scale", Scale(0.5), at(6), "weights"),
    ]
    settings: dict[str, Any] = {"recipe": plain, "fork_at": 4, "seeds": (0, 1)}
    study = Study(arms=arms, horizons=(0, 1, 2, 3, 6), **settings)
    outcomes = measure(study, FolderStore(tmp_path))
    gone = outcomes.sel(arm="explode")
    assert outcomes.arm.values.tolist() == [
        "control", "sham", "explode", "null of explode", "scale", "null of scale",
    ]  # fmt: skip
    assert gone["diverged_at"].values.tolist() == [6.0, 6.0]
    assert np.isnan(gone["logits"].sel(step=[7, 10])).all()
    assert np.isfinite(gone["logits"].sel(step=[4, 5])).all()
    assert np.isnan(gone["train_loss"][:, 6:]).all()
    assert np.isfinite(gone["train_loss"][:, :6]).all()
    quiet = Study(arms=arms[1:], horizons=(0, 1, 2, 3, 6), **settings)
    names = ["control", "sham", "scale", "null of scale"]
    assert same(outcomes.sel(arm=names), measure(quiet).sel(arm=names))
    assert np.isnan(outcomes["diverged_at"].sel(arm=names)).all()


def test_a_diverged_arm_can_be_continued():
    arms = [Arm("explode", Treatment("weights", INFINITE, at(6)))]
    settings: dict[str, Any] = {"recipe": plain, "arms": arms, "fork_at": 4, "seeds": (0,)}
    store = MemoryStore()
    measure(Study(horizons=(0, 4), **settings), store)
    study = Study(horizons=(0, 3, 4, 6), **settings)
    assert same(measure(study, store), fresh(study))


def test_a_learning_rate_that_explodes_in_one_arm():
    leaf = next(n for n in Run(heavy_ball.recipe, 0).sources["scheduler"].capture() if "lr" in n)
    huge = Replace({leaf: 1e200})
    study = Study(
        heavy_ball.recipe,
        [one("huge", huge, Window(4, 8), "scheduler")],
        fork_at=4,
        horizons=(0, 1, 12),
        seeds=(0, 1),
        probe=Values(),
    )
    outcomes = measure(study)
    assert np.isfinite(outcomes["diverged_at"].sel(arm="huge")).all()
    assert np.isnan(outcomes["values"].sel(arm="huge", step=16)).all()
    assert np.isfinite(outcomes["values"].sel(arm=["control", "sham"])).all()


def test_a_seed_that_diverges_before_the_fork():
    study = Study(
        Recipe.of(heavy_ball.recipe, lr=1e30),
        [one("reset", Reset(), at(20))],
        fork_at=20,
        horizons=(0, 3),
        seeds=(0,),
        probe=Values(),
    )
    outcomes = measure(study)
    assert np.isfinite(outcomes["diverged_at"]).all()
    assert np.isnan(outcomes["values"]).all()


# ------------------------------------------------------------------ what is refused


def restless(seed: int) -> Parts:
    parts = plain(seed)
    with torch.no_grad():
        parts.model.get_parameter("weight").add_(next(_TICKS))
    return parts


_TICKS = iter(range(1, 10_000))


def test_a_recipe_that_is_not_a_function_of_its_seed_is_refused():
    study = Study(restless, [one("reset", Reset(), at(2))], fork_at=2, horizons=(1,), seeds=(0,))
    with pytest.raises(BygonesError) as caught:
        measure(study)
    assert isinstance(caught.value, RecipeError | ForkError)


def test_a_recipe_that_is_not_a_function_of_its_seed_is_refused_by_the_worker_too():
    study = Study(restless, [one("reset", Reset(), at(2))], fork_at=2, horizons=(1,), seeds=(0,))
    with pytest.raises(RecipeError, match="builds two different runs from seed 0"):
        run_seeds(plan(study).jobs()[0])


def test_data_that_changed_under_the_store_is_refused(monkeypatch):
    store = MemoryStore()
    measure(Study(shifted, [one("reset", Reset(), at(4))], 4, (0, 3), seeds=(0,)), store)
    longer = Study(shifted, [one("reset", Reset(), at(4))], 4, (0, 3, 5), seeds=(0,))
    monkeypatch.setitem(SHIFT, "by", 1.0)
    with pytest.raises(RecipeError, match="data or something else outside its code has changed"):
        measure(longer, store)
    monkeypatch.setitem(SHIFT, "by", 0.0)
    measure(longer, store)


SHIFT = {"by": 0.0}


def shifted(seed: int) -> Parts:
    parts = plain(seed)
    inputs, labels = parts.data
    parts.data = (inputs + SHIFT["by"], labels)
    return parts


def test_forgotten_memory_is_refused_before_anything_is_trained():
    study = Study(forgetful, [one("reset", Reset(), at(4))], fork_at=4, horizons=(0, 3), seeds=(0,))
    store = MemoryStore()
    with pytest.raises(ForkError, match="hidden"):
        measure(study, store)
    assert not store._objects


def forgetful(seed: int) -> Parts:
    """A step that scales its gradient by something that no source captures."""
    parts = plain(seed)
    hidden = {"mean": float(seed)}

    def step(parts: Parts, batch: Any) -> torch.Tensor:
        hidden["mean"] = 0.9 * hidden["mean"] + float(batch[0].mean())
        loss = (1.0 + hidden["mean"] ** 2) * parts.loss(parts.model(batch[0]), batch[1])
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        return loss

    parts.train_step = step
    return parts


@pytest.mark.parametrize(
    ("place", "executor"),
    [("recipe", Serial()), ("step", Serial()), ("probe", Serial()), ("step", Processes(1))],
    ids=["recipe", "step", "probe", "step in another process"],
)
def test_a_seed_that_raises_names_the_place(place, executor, tmp_path):
    """Seed 0 is planned and checked without trouble; seed 13 raises where it trains."""
    if place == "probe":
        settings: dict[str, Any] = {"recipe": classifier, "probe": study_recipes.Shy()}
        words = "raised ValueError at step 4: I was looked at"
    else:
        settings = {"recipe": Recipe.of(study_recipes.unlucky, place=place)}
        words = f"raised ValueError.*seed 13.*bad luck in the {place}"
    study = Study(
        arms=[one("reset", Reset(), at(4))], fork_at=4, horizons=(0, 1), seeds=(0, 13), **settings
    )
    with pytest.raises(BygonesError, match=words):
        measure(study, FolderStore(tmp_path), executor)


def test_arms_that_have_the_name_of_another_arms_null_are_refused():
    arms = [one("reset", Reset(), at(4)), one("null of reset", Scale(0.5), at(4))]
    with pytest.raises(DesignError, match="null of reset"):
        Study(classifier, arms, fork_at=4, horizons=(0, 3), seeds=(0,))


# ------------------------------------------------------------------ what a reader is told


def test_names_of_studies_may_hold_anything_that_can_be_typed(tmp_path):
    store = FolderStore(tmp_path)
    names = ("my study", "my-study", "a/b: ü?", "..", "s" * 200)
    for name in names:
        study = small(("reset",), seeds=(0,), name=name)
        measure(study, store)
    for name in names:
        assert read_outcomes(store, read_manifest(store, name)).attrs["study"] == name


def test_the_realised_order_does_not_depend_on_how_the_study_was_cut():
    study = small(("reset",), seeds=(0,))
    store = MemoryStore()
    measure(small(("several", "reset"), horizons=(3, 5, 20), seeds=(0,)), store)
    mine, again = measure(study, store), fresh(study)
    assert mine.attrs["orders"] == again.attrs["orders"]


def test_the_order_of_seeds_and_arms_is_the_studys_own():
    outcomes = measure(small(("swap", "reset"), seeds=(5, 2)))
    assert outcomes.seed.values.tolist() == [5, 2]
    assert outcomes.arm.values.tolist() == [
        "control", "sham", "swap", "null of swap", "reset", "null of reset",
    ]  # fmt: skip
    swapped = measure(small(("reset", "swap"), seeds=(2, 5)))
    assert same(outcomes.sel(seed=[2, 5], arm=swapped.arm.values.tolist()), swapped)


def test_a_plan_names_results_that_another_version_of_bygones_stored():
    study = small(("reset",), horizons=(0, 1), seeds=(0,))
    store, earlier = MemoryStore(), MemoryStore()
    assert plan(study, earlier).note == ""
    measure(study, store)
    manifest = read_manifest(store)
    contract = {**manifest.facts.contract, "bygones": "0.0.9 (0123456789ab)"}
    facts = replace(manifest.facts, contract=contract)
    write_manifest(earlier, replace(manifest, facts=facts))  # its records lie elsewhere
    planned = plan(study, earlier)
    assert "'small' that another version of bygones trained (0.0.9 (0123456789ab)" in planned.note
    assert "can be read and reported" in planned.note
    assert "training starts anew" in planned.note
    assert plan_lines(planned, 1)[-1] == planned.note
    assert plan(replace(study, name="other"), earlier).note == ""
    measure(study, earlier)
    assert plan(study, earlier).note == ""
