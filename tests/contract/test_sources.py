"""Every memory source, same behaviours, in runs that really have it.

Capturing copies, restoring is exact and in place, and "new" is what a new object really does: each
claim is tested by training on, since a restored run is right when its future is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from tests.helpers.specimen_recipes import (
    AVERAGES,
    OPTIMIZERS,
    QUEUE_SIZE,
    Meter,
    accumulating,
    assorted,
    buffered,
    contrastive,
    every_recipe,
    trained,
    two_optimizers,
    wide_moments,
)
from torch import Tensor, nn

from bygones.core.digest import digest, is_array, same_bits
from bygones.core.errors import DesignError, RecipeError
from bygones.core.values import Lifetime
from bygones.training.fork_check import check_fork
from bygones.training.nested_state import flatten, like, refill, unflatten
from bygones.training.recipe import Memory, Parts, Recipe
from bygones.training.run import Run
from bygones.training.sources import SOURCES, AbstractSource

RECIPES = every_recipe()
STEP = 5  # inside an epoch, inside an accumulation window, with a queue pointer that is not zero

in_every_recipe = pytest.mark.parametrize("recipe", list(RECIPES.values()), ids=list(RECIPES))
with_every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))


def stepped(recipe: Recipe, seed: int = 0, until: int = STEP) -> Run:
    run = Run(recipe, seed)
    run.advance(until)
    return run


def weights_of(run: Run) -> str:
    return digest(dict(run.parts.model.named_parameters()))


def live(run: Run) -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """Every array that the run itself works on."""
    parts = run.parts
    yield from (("model", t) for t in [*parts.model.parameters(), *parts.model.buffers()])
    for parameter in [p for o in parts.optimizers.values() for p in o.state]:
        if parameter.grad is not None:
            yield "grad", parameter.grad
    for optimizer in parts.optimizers.values():
        yield from (
            ("state", v)
            for state in optimizer.state.values()
            for v in state.values()
            if is_array(v)
        )
    if parts.averages is not None:
        yield from (("averages", t) for t in parts.averages.state_dict().values())
    for name, entry in parts.others.items():
        value = entry.value if isinstance(entry, Memory) else entry
        tensors = value.state_dict().values() if isinstance(value, nn.Module) else [value]
        yield from ((name, t) for t in tensors if is_array(t))


# ------------------------------------------------------------------ capture and restore


def test_the_recipes_have_every_source_there_is():
    found = {
        type(source) for recipe in RECIPES.values() for source in Run(recipe, 0).sources.values()
    }
    assert found == set(SOURCES.values())


@in_every_recipe
def test_a_capture_shares_no_memory_with_the_run(recipe: Recipe):
    run = stepped(recipe)
    states = {name: source.capture() for name, source in run.sources.items()}
    before = digest(states)
    with torch.no_grad():
        for _, array in live(run):
            array[...] = 1
    run.parts.keys.update(dict.fromkeys(run.parts.keys, 1))
    run.advance(STEP + 2)
    assert digest(states) == before


@in_every_recipe
def test_a_run_shares_no_memory_with_what_it_was_restored_from(recipe: Recipe):
    run = stepped(recipe)
    snapshot = run.snapshot()
    run.restore(snapshot)
    before = run.snapshot().digest()
    for state in snapshot.states.values():
        for leaf in state.values():
            if is_array(leaf):
                leaf[...] = 1
    assert run.snapshot().digest() == before


@in_every_recipe
@pytest.mark.parametrize("already", [0, STEP + 2], ids=["new run", "run gone further"])
def test_restore_is_exact_in_a_run_of_another_seed(recipe: Recipe, already: int):
    """Also where the target has state that the snapshot lacks, and the other way round."""
    for until in (0, STEP):
        snapshot = stepped(recipe, until=until).snapshot()
        other = stepped(recipe, seed=7, until=already)
        assert other.snapshot().digest() != snapshot.digest()
        other.restore(snapshot)
        again = other.snapshot()
        for name, state in snapshot.states.items():
            assert again.states[name].keys() == state.keys()
            assert all(same_bits(again.states[name][leaf], state[leaf]) for leaf in state), name
        assert again.digest() == snapshot.digest()


@in_every_recipe
def test_restore_writes_in_place(recipe: Recipe):
    snapshot = stepped(recipe, until=STEP - 1).snapshot()
    run = stepped(recipe, seed=3)
    gradients_are_there = any(leaf for leaf in snapshot.states["gradients"])
    before = {
        (name, index): (id(array), array.data_ptr() if isinstance(array, Tensor) else 0)
        for index, (name, array) in enumerate(live(run))
        if name != "grad" or gradients_are_there
    }
    containers = {name: id(entry) for name, entry in run.parts.others.items()}
    run.restore(snapshot)
    after = {
        (name, index): (id(array), array.data_ptr() if isinstance(array, Tensor) else 0)
        for index, (name, array) in enumerate(live(run))
        if name != "grad" or gradients_are_there
    }
    moved = {key for key in before if key[0] not in ("grad", "averages")} & {
        key for key, place in before.items() if after[key][1] != place[1]
    }
    assert not moved
    assert {name: id(entry) for name, entry in run.parts.others.items()} == containers


def test_in_place_means_inside_containers_too():
    inner = {"sum": 1.0, "array": np.zeros(2), "tensor": torch.zeros(2)}
    held = {"gone": 1, "nested": inner, "list": [1, 2, 3]}
    array, tensor, listed = inner["array"], inner["tensor"], held["list"]
    refill(
        held, {"list": [4], "nested": {"tensor": torch.ones(2), "array": np.ones(2), "sum": 2.0}}
    )
    assert list(held) == ["list", "nested"]  # the snapshot's order, and nothing else
    assert held["nested"] is inner
    assert inner["sum"] == 2.0
    assert inner["array"] is array
    assert inner["tensor"] is tensor
    assert held["list"] is listed
    assert listed == [4]
    assert array.tolist() == tensor.tolist() == [1, 1]


@pytest.mark.parametrize("source", ["weights", "moments", "batchnorm", "averages", "scheduler"])
def test_one_source_alone_is_restored_and_no_other_is_touched(source: str):
    recipe = Recipe.of(trained, optimizer="adam", averages="ema", scheduler="cosine")
    snapshot = stepped(recipe).snapshot()
    other = stepped(recipe, seed=2, until=STEP + 1)
    before = other.snapshot().states
    other.sources[source].restore(snapshot.states[source])
    after = other.snapshot().states
    assert digest(after[source]) == digest(snapshot.states[source]) != digest(before[source])
    assert all(digest(after[name]) == digest(before[name]) for name in after if name != source)


def test_float32_moments_of_bfloat16_parameters_stay_float32():
    """`Optimizer.load_state_dict` would round them to bfloat16; see how much that loses."""
    run = stepped(Recipe.of(wide_moments))
    state = run.sources["moments"].capture()
    assert {leaf.dtype for leaf in state.values()} == {torch.float32}
    assert any(not same_bits(leaf, leaf.bfloat16().float()) for leaf in state.values())
    twin = stepped(Recipe.of(wide_moments), seed=4)
    twin.sources["moments"].restore(state)
    assert digest(twin.sources["moments"].capture()) == digest(state)


@pytest.mark.parametrize(("first", "second"), [("sgd", "adam"), ("heavy-ball", "adam")])
def test_moments_of_another_optimizer_are_replaced_whole(first: str, second: str):
    run, other = (
        stepped(Recipe.of(trained, optimizer=first)),
        stepped(Recipe.of(trained, optimizer=second)),
    )
    run.sources["moments"].restore(other.sources["moments"].capture())
    assert digest(run.sources["moments"].capture()) == digest(other.sources["moments"].capture())


def test_a_snapshot_of_another_architecture_is_refused():
    small, large = Run(Recipe.of(trained, norm=False), 0), Run(Recipe.of(trained), 0)
    with pytest.raises(RecipeError, match="built by the same recipe"):
        small.sources["weights"].restore(large.sources["weights"].capture())


@pytest.mark.parametrize(
    "value", [np.zeros(4, dtype=np.float32), np.zeros(3), np.zeros((1, 3), dtype=np.float32)]
)
def test_an_array_of_another_kind_is_refused_and_not_cast(value: np.ndarray):
    history = Run(Recipe.of(assorted), 0).sources["history"]
    with pytest.raises(
        RecipeError, match=r"cannot restore history: it is float32 \[3\] in this run"
    ):
        history.restore({"value": value})


def test_parameters_outside_the_model_go_by_their_own_names():
    leaves = stepped(Recipe.of(two_optimizers)).snapshot().states
    assert {"head:temperature/momentum_buffer", "head:bias/momentum_buffer"} <= leaves[
        "moments"
    ].keys()
    assert {"body:0.weight/exp_avg", "head:3.weight/momentum_buffer"} <= leaves["moments"].keys()


def unnamed_parameters(seed: int) -> Parts:
    """Two groups of parameters that no module and no name leads to."""
    parts = two_optimizers(seed)
    parts.others = {}
    return parts


def test_parameters_without_a_name_are_told_apart():
    run = Run(unnamed_parameters, 0)
    for index, group in enumerate(run.parts.optimizers["head"].param_groups):
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, float(index))
    gradients = run.sources["gradients"].capture()
    assert len([name for name in gradients if name.startswith("head:parameter")]) == 2


# ------------------------------------------------------------------ continue, don't compare


@in_every_recipe
def test_a_fork_ends_as_the_original(recipe: Recipe):
    certificate = check_fork(recipe, at=[1, STEP], until=STEP + 3)
    assert "weights" in certificate.needed
    assert "order" in certificate.needed


@pytest.mark.parametrize(
    ("recipe", "needed"),
    [
        (Recipe.of(trained, optimizer="adam"), {"moments", "batchnorm", "streams"}),
        (Recipe.of(trained, scheduler="one-cycle"), {"moments", "scheduler"}),
        (Recipe.of(trained, scheduler="plateau", optimizer="sgd"), {"scheduler"}),
        (Recipe.of(trained, averages="swa"), {"averages"}),
        (Recipe.of(accumulating), {"gradients", "counter"}),
        (Recipe.of(buffered), {"buffers", "batchnorm"}),
        (Recipe.of(two_optimizers), {"moments", "temperature", "bias"}),
        (Recipe.of(contrastive), {"queue", "pointer", "key encoder"}),
        (
            Recipe.of(assorted),
            {"teacher", "queue", "pointer", "history", "counts", "single", "meter"}
            | {"torch-rng", "numpy-rng", "legacy-rng", "python-rng"},
        ),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_leaving_a_source_out_is_noticed(recipe: Recipe, needed: set[str]):
    assert needed <= set(check_fork(recipe, at=[STEP], until=STEP + 3).needed)


# ------------------------------------------------------------------ what "new" means


@with_every_optimizer
def test_a_reset_optimizer_trains_on_as_a_really_new_one(name: str):
    recipe = Recipe.of(trained, optimizer=name)
    reset, renewed = stepped(recipe), stepped(recipe)
    moments = reset.sources["moments"]
    moments.restore(moments.fresh())
    renewed.parts.optimizer = OPTIMIZERS[name](renewed.parts.model.parameters())
    for step in range(STEP + 1, STEP + 6):
        reset.advance(step)
        renewed.advance(step)
        assert weights_of(reset) == weights_of(renewed), step


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
def test_a_reset_optimizer_does_not_train_on_as_before(name: str):
    recipe = Recipe.of(trained, optimizer=name)
    reset, carried = stepped(recipe), stepped(recipe)
    reset.sources["moments"].restore(reset.sources["moments"].fresh())
    reset.advance(STEP + 4)
    carried.advance(STEP + 4)
    assert weights_of(reset) != weights_of(carried)


@pytest.mark.parametrize("name", ["adam", "adamw-amsgrad", "radam", "adamax", "adadelta"])
def test_zeroed_moments_that_keep_their_count_are_another_treatment(name: str):
    recipe = Recipe.of(trained, optimizer=name)
    reset, zeroed = stepped(recipe), stepped(recipe)
    fresh = reset.sources["moments"].fresh()
    reset.sources["moments"].restore(fresh)
    kept = {k: v for k, v in zeroed.sources["moments"].capture().items() if k.endswith("/step")}
    assert kept
    zeroed.sources["moments"].restore({**fresh, **kept})
    assert any(leaf.any() for leaf in kept.values())
    reset.advance(STEP + 3)
    zeroed.advance(STEP + 3)
    assert (weights_of(reset) == weights_of(zeroed)) == (name == "adadelta")  # it corrects no bias


def test_an_optimizer_of_ones_own_that_starts_at_the_gradient_starts_there_again():
    recipe = Recipe.of(wide_moments)
    run = stepped(recipe)
    moments = run.sources["moments"]
    assert dict(moments.fresh()) == {}
    moments.restore(moments.fresh())
    run.advance(STEP + 1)
    gradientlike = moments.capture()
    run.parts.optimizers[""].state.clear()
    again = stepped(recipe)
    again.parts.optimizers[""].state.clear()
    again.advance(STEP + 1)
    assert digest(gradientlike) == digest(again.sources["moments"].capture())


class Anchored(torch.optim.Optimizer):
    """Pulls every parameter back to where it was when the optimizer was made."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["anchor"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for parameter in group["params"]:
                away = parameter - self.state[parameter]["anchor"]
                parameter.sub_(group["lr"] * (parameter.grad + 0.5 * away))


def anchored(seed: int) -> Parts:
    parts = trained(seed)
    parts.optimizer = Anchored(parts.model.parameters())
    return parts


def test_an_optimizer_that_is_filled_when_it_is_made_is_reset_to_what_it_would_hold_today():
    reset, renewed = stepped(Recipe.of(anchored)), stepped(Recipe.of(anchored))
    reset.sources["moments"].restore(reset.sources["moments"].fresh())
    renewed.parts.optimizer = Anchored(renewed.parts.model.parameters())
    held = {name: leaf for name, leaf in reset.sources["moments"].capture().items()}
    assert all(
        same_bits(held[f"{name}/anchor"], p.detach())
        for name, p in reset.parts.model.named_parameters()
    )
    reset.advance(STEP + 3)
    renewed.advance(STEP + 3)
    assert weights_of(reset) == weights_of(renewed)


@pytest.mark.parametrize("name", list(AVERAGES))
def test_a_reset_average_goes_on_as_a_really_new_one(name: str):
    recipe = Recipe.of(trained, averages=name)
    reset, renewed = stepped(recipe), stepped(recipe)
    averages = reset.sources["averages"]
    averages.restore(averages.fresh())
    made = AVERAGES[name](renewed.parts.model)
    assert reset.parts.averages is not None
    assert digest(reset.parts.averages.state_dict()) == digest(made.state_dict())
    renewed.parts.averages = made
    reset.advance(STEP + 4)
    renewed.advance(STEP + 4)
    assert digest(reset.parts.averages.state_dict()) == digest(made.state_dict())


def test_reset_batchnorm_goes_on_as_after_reset_running_stats():
    reset, renewed = stepped(Recipe.of(trained)), stepped(Recipe.of(trained))
    reset.sources["batchnorm"].restore(reset.sources["batchnorm"].fresh())
    for module in renewed.parts.model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
    assert reset.snapshot().digest() == renewed.snapshot().digest()
    reset.advance(STEP + 3)
    renewed.advance(STEP + 3)
    assert reset.snapshot().digest() == renewed.snapshot().digest()


def test_reset_gradients_go_on_as_after_zero_grad():
    reset, renewed = stepped(Recipe.of(accumulating)), stepped(Recipe.of(accumulating))
    assert reset.sources["gradients"].capture()
    reset.sources["gradients"].restore(reset.sources["gradients"].fresh())
    renewed.parts.optimizers[""].zero_grad()
    reset.advance(STEP + 3)
    renewed.advance(STEP + 3)
    assert reset.snapshot().digest() == renewed.snapshot().digest()


AS_BUILT = [
    (Recipe.of(trained, optimizer="heavy-ball", scheduler=name), "scheduler")
    for name in ("cosine", "one-cycle", "sequential", "multi-step", "lambda")
]
AS_BUILT += [(Recipe.of(buffered), "buffers"), (Recipe.of(trained), "order")]
AS_BUILT += [
    (Recipe.of(assorted), name)
    for name in Run(assorted, 0).sources
    if name not in SOURCES and name != "queue"
]


@pytest.mark.parametrize(("recipe", "name"), AS_BUILT, ids=[f"{r} {n}" for r, n in AS_BUILT])
def test_where_new_means_as_built_it_is_what_the_recipe_builds(recipe: Recipe, name: str):
    """A run in which all but this source is restored has it as the recipe built it."""
    run = stepped(recipe)
    built = Run(recipe, 0)
    built.restore(run.snapshot(), leave_out=name)
    run.sources[name].restore(run.sources[name].fresh())
    assert run.snapshot().digest() == built.snapshot().digest()
    run.advance(STEP + 4)
    built.advance(STEP + 4)
    assert run.snapshot().digest() == built.snapshot().digest()


def test_a_memory_says_itself_what_a_new_one_is():
    run = stepped(Recipe.of(assorted))
    queue = run.sources["queue"]
    queue.restore(queue.fresh())
    assert not queue.capture()["value"].any()
    assert not same_bits(queue.capture(), Run(Recipe.of(assorted), 0).sources["queue"].capture())


@in_every_recipe
def test_fresh_neither_changes_the_run_nor_shares_memory_with_it(recipe: Recipe):
    run = stepped(recipe)
    before = run.snapshot().digest()
    states = [s.fresh() for s in run.sources.values() if "resettable" in s.capabilities]
    assert run.snapshot().digest() == before
    told = digest(states)
    run.advance(STEP + 2)
    assert digest(states) == told


@pytest.mark.parametrize("name", ["weights", "streams"])
def test_what_cannot_be_new_says_so(name: str):
    with pytest.raises(DesignError, match=f"'{name}' cannot be reset: "):
        Run(trained, 0).sources[name].fresh()


# ------------------------------------------------------------------ lifetimes (science, section 1)


def lifetime(source: str, **settings: object) -> Lifetime:
    return Run(Recipe.of(trained, **settings), 0).sources[source].lifetime()


@pytest.mark.parametrize(
    ("optimizer", "factor"),
    [("heavy-ball", 0.9), ("adam", 0.999), ("rmsprop", 0.99), ("adadelta", 0.9), ("sgd", 0.0)],
)
def test_moments_last_as_long_as_their_slowest_decay(optimizer: str, factor: float):
    assert lifetime("moments", optimizer=optimizer) == Lifetime.decaying(factor)


@pytest.mark.parametrize("optimizer", ["adagrad", "adamw-amsgrad", "asgd", "rprop", "lbfgs"])
def test_sums_and_maxima_never_forget(optimizer: str):
    assert lifetime("moments", optimizer=optimizer) == Lifetime("unbounded")


def test_the_half_lives_that_are_quoted():
    assert lifetime("moments").half_life == pytest.approx(6.578813478960585, rel=1e-12)
    assert lifetime("batchnorm").half_life == pytest.approx(6.578813478960585, rel=1e-12)
    assert lifetime("moments", optimizer="adam").half_life == pytest.approx(692.8, abs=0.05)
    assert lifetime("averages", averages="ema").steps == pytest.approx(-1 / math.log(0.9))
    assert lifetime("averages", averages="swa") == Lifetime("unbounded")
    assert lifetime("averages", averages="swa-default") == Lifetime("unbounded")
    assert lifetime("scheduler", scheduler="cosine") == Lifetime("phase", 12)
    assert lifetime("order") == Lifetime("phase", 3)
    assert lifetime("order", order="shuffle-once") == Lifetime("unbounded")
    assert lifetime("order", order="with-replacement") == Lifetime("exact", 1)
    assert lifetime("order", order="curriculum") == Lifetime("phase", 6)
    assert lifetime("weights") == lifetime("streams") == Lifetime("unbounded")
    queue = Run(contrastive, 0).sources["queue"].lifetime()
    assert queue == Lifetime("exact", QUEUE_SIZE / 4)


def decay(source: AbstractSource, run: Run, leaves: str, steps: int) -> float:
    """The factor a step by which a doubling of some leaves fades while the run trains on."""
    twin = Run(run.recipe, 5)
    twin.restore(run.snapshot())
    doubled = {n: x * 2 if n.endswith(leaves) else x for n, x in source.capture().items()}
    twin.sources[source.name].restore(doubled)
    gaps = []
    for _ in range(steps):
        mine, theirs = source.capture(), twin.sources[source.name].capture()
        gaps.append(sum(float((theirs[n] - mine[n]).norm()) for n in mine if n.endswith(leaves)))
        run.advance(run.step + 1)
        twin.advance(twin.step + 1)
    return (gaps[-1] / gaps[0]) ** (1 / (steps - 1))


@pytest.mark.parametrize(
    ("source", "settings", "leaves"),
    [
        ("batchnorm", {}, "running_mean"),
        ("averages", {"averages": "ema"}, "weight"),
        ("moments", {"optimizer": "heavy-ball", "lr": 0.0}, "momentum_buffer"),
        ("moments", {"optimizer": "rmsprop", "lr": 0.0}, "square_avg"),
        ("moments", {"optimizer": "adam", "lr": 0.0}, "exp_avg_sq"),
    ],
)
def test_the_carrier_fades_as_its_lifetime_says(
    source: str, settings: dict[str, object], leaves: str
):
    """A doubled leaf comes back towards the control by the stated factor, where nothing feeds back."""
    run = stepped(Recipe.of(trained, **settings))
    stated = run.sources[source].lifetime()
    assert -1 / math.log(decay(run.sources[source], run, leaves, 8)) == pytest.approx(
        stated.steps, rel=2e-2 if "square" in leaves or "sq" in leaves else 1e-4
    )


# ------------------------------------------------------------------ what cannot be captured


def strange(seed: int, what: str = "number") -> Parts:
    parts = trained(seed)
    odd: dict[str, object] = {
        "number": 3,
        "set": {"seen": {1, 2}},
        "objects": {"array": np.array([None, "a"])},
        "slash": {"a/b": 1},
        "flag": {True: 1},
        "builtin": torch.zeros(1),
    }
    parts.others = {"weights" if what == "builtin" else "odd": odd[what]}
    return parts


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("number", r"others\['odd'\] is a int, .* keep a bare number in a dict"),
        ("set", r"others\['odd'\] holds a set at 'seen', which cannot be captured exactly"),
        ("objects", r"others\['odd'\] holds a ndarray at 'array', which cannot be captured"),
        ("slash", r"a key must be a name or a number; got 'a/b'"),
        ("flag", r"a key must be a name or a number; got True"),
        ("builtin", r"others\['weights'\] has the name of a built-in source"),
    ],
)
def test_what_cannot_be_captured_exactly_is_refused(what: str, sentence: str):
    with pytest.raises(RecipeError, match=sentence):
        Run(Recipe.of(strange, what=what), 0)


NESTED = [
    {},
    [],
    (),
    {"": 1, ".": 2, ".a": 3, "..b": 4, "#1": 5, 1: 6, -2: 7, "[0": 8, "(0": 9, "{}": 10},
    {"a": {"b": {}, "c": []}, "d": ((), [()])},
    [list(range(12)), (None, True, -0.0, "x")],
    7,
    None,
]


@pytest.mark.parametrize("value", NESTED, ids=str)
def test_flattening_can_be_undone(value: object):
    back = unflatten(flatten(value, "here"))
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_containers_and_numbers_keep_their_types():
    meter = Meter()
    meter.seen = {"float32": np.float32(0.1), "uint8": np.uint8(250), "pair": (np.float32(1), 2)}
    kept = flatten(meter.state_dict(), "a meter")
    back = like(meter.state_dict(), unflatten(kept))["seen"]
    assert [type(v) for v in back.values()] == [np.float32, np.uint8, tuple]
    assert type(back["pair"][0]) is np.float32
    assert back == meter.seen
