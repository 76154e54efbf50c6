"""Every intervention on every source: pure, local, repeatable, and refused where it means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.specimen_recipes import accumulating, assorted, buffered, contrastive, trained
from torch import Tensor

from bygones.core.digest import digest, same_bits
from bygones.core.errors import DesignError, UnknownName
from bygones.core.keyed_rng import generator
from bygones.core.values import Leaf, State, Window, match_leaves
from bygones.study.snapshot_bytes import decode, encode
from bygones.training.interventions import (
    INTERVENTIONS,
    AbstractIntervention,
    Boundary,
    Carry,
    Hold,
    Kick,
    MatchedNull,
    Nudge,
    Permute,
    Replace,
    Resample,
    Reseed,
    Reset,
    Roll,
    Scale,
    Sham,
    SwapWindows,
    Transplant,
)
from bygones.training.leaves import add, is_continuous, to_float64
from bygones.training.orders import Reshuffle, Sequential
from bygones.training.recipe import Recipe
from bygones.training.rewriter import OtherRuns
from bygones.training.run import Run, Snapshot
from bygones.training.sources import SOURCES, AbstractSource
from bygones.training.treatment import Treatment, check_pair, matched_null

STEP = 5
RICH = Recipe.of(trained, optimizer="adam", averages="ema", scheduler="cosine")
RUNS: dict[str, tuple[Recipe, str]] = {
    name: (RICH, name)
    for name in ("weights", "moments", "scheduler", "batchnorm", "averages", "order", "streams")
}
RUNS["gradients"] = (Recipe.of(accumulating), "gradients")
RUNS["buffers"] = (Recipe.of(buffered), "buffers")
RUNS["heavy ball"] = (Recipe.of(trained), "moments")
RUNS["bfloat16"] = (Recipe.of(trained, dtype="bfloat16", augmented=False), "weights")
RUNS |= {
    name: (Recipe.of(assorted), name) for name in Run(assorted, 0).sources if name not in SOURCES
}

EXAMPLES: dict[str, AbstractIntervention] = {
    "carry": Carry(),
    "sham": Sham(),
    "reset": Reset(),
    "scale": Scale(0.5),
    "nudge": Nudge(0.01),
    "matched-null": MatchedNull(of=Scale(0.25)),
    "kick": Kick({}),
    "hold": Hold(),
    "permute": Permute(),
    "roll": Roll(1),
    "transplant": Transplant(),
    "reseed": Reseed(),
    "resample": Resample(),
    "swap-windows": SwapWindows(),
    "replace": Replace({}),
}
LENGTH = {"swap-windows": 4, "hold": 3, "permute": 3, "replace": 2}


def stepped(recipe: Recipe, seed: int = 0, until: int = STEP) -> Run:
    run = Run(recipe, seed)
    run.advance(until)
    return run


@cache
def donor_of(recipe: Recipe, step: int) -> Snapshot:
    return stepped(recipe, seed=99, until=step).snapshot()


def window_for(verb: str) -> Window:
    return Window(STEP, STEP + LENGTH.get(verb, 1))


def for_source(verb: str, state: State) -> AbstractIntervention:
    """The example, with leaves that this source has where it must name some."""
    array = next((name for name, leaf in state.items() if is_continuous(leaf)), None)
    if verb == "kick" and array is not None:
        return Kick({array: np.ones(state[array].shape)})
    if verb == "replace":
        name = "policy" if "policy" in state else next(iter(state))
        return Replace({name: Sequential(12, 4) if name == "policy" else state[name]})
    return EXAMPLES[verb]


def is_allowed(source: AbstractSource, verb: str, window: Window) -> bool:
    try:
        check_pair(Treatment(source.name, EXAMPLES[verb], window), source)
    except DesignError:
        return False
    return True


@cache
def meaningful() -> dict[tuple[str, str], bool]:
    """Whether a verb means something, by label and verb; asking changes no run, so one a label will do."""
    sources = {label: Run(recipe, 0).sources[name] for label, (recipe, name) in RUNS.items()}
    return {
        (label, verb): is_allowed(source, verb, window_for(verb))
        for label, source in sources.items()
        for verb in INTERVENTIONS
    }


def pairs(allowed: bool) -> list[Any]:
    return [
        pytest.param(recipe, name, verb, id=f"{verb}-{label}")
        for label, (recipe, name) in RUNS.items()
        for verb in INTERVENTIONS
        if meaningful()[label, verb] is allowed
    ]


def boundary(run: Run, source: str, leaves: str = "*", verb: str = "sham") -> Boundary:
    held = run.sources[source]
    state = held.capture()
    donor = donor_of(run.recipe, run.step).states[source]

    def chosen(whole: State) -> State:
        return {name: whole[name] for name in match_leaves(whole, leaves)}

    return Boundary(
        step=run.step,
        window=window_for(verb),
        source=source,
        leaves=leaves,
        entry=chosen(state),
        fresh=chosen(held.fresh()) if "resettable" in held.capabilities else None,
        donor=chosen(donor),
        rng=generator(run.seed, "intervention", source, run.step),
    )


def kind_of(leaf: Leaf) -> tuple[Any, ...]:
    if isinstance(leaf, Tensor):
        return ("tensor", leaf.dtype, tuple(leaf.shape), leaf.device.type)
    if isinstance(leaf, np.ndarray):
        return ("array", leaf.dtype, leaf.shape)
    return ("plain", type(leaf))


def treated(run: Run, intervention: AbstractIntervention, source: str, leaves: str = "*") -> State:
    """The source's state after one boundary with this treatment; the run is changed."""
    window = window_for(intervention.verb)
    donor = donor_of(run.recipe, run.step)
    run.intervene(
        [Treatment(source, intervention, window, leaves)],
        OtherRuns(donor=lambda step: donor.states),
    )
    return run.sources[source].capture()


def array_leaves(state: State) -> dict[str, np.ndarray]:
    return {name: to_float64(leaf) for name, leaf in state.items() if is_continuous(leaf)}


def norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))


# ------------------------------------------------------------------ what all of them do


def test_there_is_an_example_of_every_intervention_and_every_source():
    assert list(EXAMPLES) == list(INTERVENTIONS)
    assert {name for name in SOURCES if name != "(yours)"} <= {name for _, name in RUNS.values()}


@pytest.mark.parametrize(("recipe", "source", "verb"), pairs(allowed=True))
def test_inputs_are_left_alone_and_kinds_are_kept(recipe: Recipe, source: str, verb: str):
    run = stepped(recipe)
    state = run.sources[source].capture()
    at = boundary(run, source, verb=verb)
    before = digest([state, at.entry, at.fresh, at.donor])
    whole = run.snapshot().digest()
    after = for_source(verb, state)(state, at)
    assert digest([state, at.entry, at.fresh, at.donor]) == before
    assert run.snapshot().digest() == whole
    shapes_may_change = {"detour"} | ({"history"} if verb in ("reset", "transplant") else set())
    for name, leaf in after.items():
        if name in state and name.partition("/")[0] not in shapes_may_change:
            assert kind_of(leaf) == kind_of(state[name]), name


@pytest.mark.parametrize(("recipe", "source", "verb"), pairs(allowed=True))
def test_equal_addresses_give_equal_results(recipe: Recipe, source: str, verb: str):
    run = stepped(recipe)
    state = run.sources[source].capture()
    intervention = for_source(verb, state)
    once = intervention(state, boundary(run, source, verb=verb))
    assert digest(once) == digest(intervention(state, boundary(run, source, verb=verb)))


@pytest.mark.parametrize(("recipe", "source", "verb"), pairs(allowed=True))
def test_a_treatment_changes_its_own_source_and_no_other(recipe: Recipe, source: str, verb: str):
    run = stepped(recipe)
    before = run.snapshot().states
    treated(run, for_source(verb, before[source]), source)
    after = run.snapshot().states
    assert all(same_states(after[name], before[name]) for name in after if name != source)
    run.advance(STEP + 2)
    assert np.isfinite(run.losses).all()


def same_states(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


LEAVES = [
    ("weights", "0.*", "scale", RICH),
    ("weights", "*.bias", "nudge", RICH),
    ("weights", "0.weight", "permute", RICH),
    ("weights", "0.weight|4.bias", "matched-null", RICH),
    ("weights", "0.*", "transplant", RICH),
    ("moments", "*/exp_avg", "reset", RICH),
    ("moments", "*/exp_avg*", "reset", RICH),
    ("moments", "*/step", "reset", RICH),
    ("moments", "0.weight/*", "transplant", RICH),
    ("batchnorm", "*/running_var", "reset", RICH),
    ("averages", "n_averaged", "reset", RICH),
    ("streams", "dropout", "reseed", RICH),
    ("buffers", "hidden", "reset", Recipe.of(buffered)),
]


@pytest.mark.parametrize(("source", "leaves", "verb", "recipe"), LEAVES)
def test_only_the_selected_leaves_are_touched(source: str, leaves: str, verb: str, recipe: Recipe):
    run = stepped(recipe)
    before = run.sources[source].capture()
    chosen = set(match_leaves(before, leaves))
    assert 0 < len(chosen) < len(before)
    after = treated(run, EXAMPLES[verb], source, leaves)
    assert after.keys() == before.keys()
    changed = {name for name in before if not same_bits(before[name], after[name])}
    assert changed
    assert changed <= chosen


@pytest.mark.parametrize(("recipe", "source", "verb"), pairs(allowed=False))
def test_what_means_nothing_is_refused_in_one_sentence(recipe: Recipe, source: str, verb: str):
    with pytest.raises(DesignError) as caught:
        check_pair(
            Treatment(source, EXAMPLES[verb], window_for(verb)), Run(recipe, 0).sources[source]
        )
    sentence = str(caught.value)
    assert f"'{source}'" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("source", "verb"),
    [
        ("weights", "reset"),
        ("streams", "reset"),
        ("streams", "scale"),
        ("streams", "permute"),
        ("order", "nudge"),
        ("order", "kick"),
        ("scheduler", "scale"),
        ("scheduler", "permute"),
        ("moments", "reseed"),
        ("weights", "swap-windows"),
        ("pointer", "nudge"),
        ("python-rng", "scale"),
    ],
)
def test_pairs_that_must_be_refused(source: str, verb: str):
    recipe, name = RUNS[source]
    assert not is_allowed(Run(recipe, 0).sources[name], verb, window_for(verb))


@pytest.mark.parametrize(
    ("intervention", "window", "sentence"),
    [
        (Transplant(), Window(1, 3), "transplant acts at one boundary"),
        (SwapWindows(), Window(1, 4), "the length must be even; got 3 steps"),
    ],
)
def test_windows_that_mean_nothing_are_refused(
    intervention: AbstractIntervention, window: Window, sentence: str
):
    with pytest.raises(DesignError, match=sentence):
        check_pair(Treatment("order", intervention, window), Run(RICH, 0).sources["order"])


def test_the_null_of_what_means_nothing_means_nothing():
    with pytest.raises(DesignError, match="'weights' cannot be reset"):
        check_pair(
            Treatment("weights", MatchedNull(of=Reset()), Window(1, 2)),
            Run(RICH, 0).sources["weights"],
        )


# ------------------------------------------------------------------ known answers


@pytest.mark.parametrize(
    "intervention", [Carry(), Sham(), Scale(1.0), Nudge(0.0), Kick({})], ids=str
)
@pytest.mark.parametrize("source", ["weights", "moments", "batchnorm", "averages"])
def test_what_changes_nothing_changes_not_a_bit(intervention: AbstractIntervention, source: str):
    control, run = stepped(RICH, until=9), stepped(RICH)
    run.advance(9, [Treatment(source, intervention, Window(STEP, STEP + 2))])
    assert run.snapshot().digest() == control.snapshot().digest()


@pytest.mark.parametrize("label", list(RUNS))
def test_a_sham_arm_is_exactly_the_control(label: str):
    recipe, source = RUNS[label]
    control, run = stepped(recipe, until=9), Run(recipe, 0)
    run.advance(9, [Treatment(source, Sham(), Window(0, 9))])
    assert run.snapshot().digest() == control.snapshot().digest()
    assert run.losses == control.losses


@pytest.mark.parametrize(
    ("alpha", "dtype"), [(0.5, "float32"), (-2.0, "float32"), (0.25, "bfloat16")]
)
def test_scale_multiplies_arrays_and_leaves_counters(alpha: float, dtype: str):
    run = stepped(Recipe.of(trained, optimizer="adam", dtype=dtype, augmented=False))
    before = run.sources["moments"].capture()
    after = treated(run, Scale(alpha), "moments")
    for name in before:
        factor = 1.0 if name.endswith("/step") else alpha
        assert same_bits(after[name], before[name] * factor), name


def test_scale_reaches_counters_that_are_named():
    run = stepped(RICH)
    after = treated(run, Scale(2.0), "moments", "*/step")
    assert {float(leaf) for name, leaf in after.items() if name.endswith("/step")} == {2.0 * STEP}


@pytest.mark.parametrize("alpha", [0.5, np.float64(0.5), np.float32(0.5)])
def test_the_type_of_alpha_does_not_change_the_type_of_a_leaf(alpha: Any):
    run = stepped(Recipe.of(assorted))
    assert treated(run, Scale(alpha), "history")["value"].dtype == np.float32


NUDGED = [("weights", RICH), ("moments", RICH), ("batchnorm", RICH), ("averages", RICH)]


@pytest.mark.parametrize("epsilon", [0.01, 0.5])
@pytest.mark.parametrize(("source", "recipe"), NUDGED)
def test_a_nudge_is_epsilon_of_each_leaf_and_antisymmetric(
    source: str, recipe: Recipe, epsilon: float
):
    state = stepped(recipe).sources[source].capture()
    wide = {name: leaf.double() if is_continuous(leaf) else leaf for name, leaf in state.items()}
    forth = Nudge(epsilon)(wide, boundary(stepped(recipe), source))
    back = Nudge(-epsilon)(wide, boundary(stepped(recipe), source))
    for name, before in array_leaves(wide).items():
        there, here = to_float64(forth[name]) - before, to_float64(back[name]) - before
        assert norm(there) == pytest.approx(epsilon * norm(before), rel=1e-12)
        np.testing.assert_allclose(there, -here, atol=1e-12 * norm(before))
    assert all(same_bits(forth[n], wide[n]) for n in wide if not is_continuous(wide[n]))


@pytest.mark.parametrize(
    "intervention", [Nudge(0.9), MatchedNull(of=Scale(0.0)), Permute()], ids=str
)
def test_second_moments_and_variances_never_turn_negative(intervention: AbstractIntervention):
    """A negative second moment is the square root of a negative number one step later."""
    state = {
        "w/exp_avg_sq": torch.tensor([0.0, 1e-9, 0.0, 1.0, 2.0], dtype=torch.float32),
        "w/running_var": np.array([0.0, 5.0]),
    }
    for step in range(40):
        at = Boundary(
            step, Window(step, step + 1), "moments", "*", state, None, None, generator(step)
        )
        assert all((leaf >= 0).all() for leaf in intervention(state, at).values())


def test_adam_survives_a_nudge_where_a_unit_is_dead():
    """Its second moments are exactly zero there; half of all kicks would make them negative."""
    run = Run(Recipe.of(trained, optimizer="adam", norm=False, dropout=0.0, augmented=False), 0)
    with torch.no_grad():
        run.parts.model[-1].weight[:, 0] = 0.0  # pyright: ignore[reportIndexIssue, reportArgumentType]
    run.advance(1)
    moments = run.sources["moments"].capture()
    assert any((leaf == 0).any() for name, leaf in moments.items() if name.endswith("exp_avg_sq"))
    run.advance(8, [Treatment("moments", Nudge(0.1), Window(1, 6))])
    assert run.diverged_at is None


NULLS: list[tuple[str, AbstractIntervention, str]] = [
    ("weights", Scale(0.5), "*"),
    ("weights", Transplant(), "*"),
    ("weights", Kick({"0.weight": 0.3}), "*"),
    ("moments", Reset(), "*"),
    ("moments", Reset(), "*/exp_avg_sq"),
    ("moments", Transplant(), "*"),
    ("batchnorm", Reset(), "*"),
    ("batchnorm", Transplant(), "*"),
    ("averages", Permute(), "*"),
]


@pytest.mark.parametrize("draw", [0, 1])
@pytest.mark.parametrize(("source", "intervention", "leaves"), NULLS)
def test_a_matched_null_is_leaf_by_leaf_as_large_as_the_treatment(
    source: str, intervention: AbstractIntervention, leaves: str, draw: int
):
    run = stepped(RICH)
    state = run.sources[source].capture()
    state = {n: x.double() if is_continuous(x) else x for n, x in state.items()}
    state = {name: state[name] for name in match_leaves(state, leaves)}
    moved = array_leaves(intervention(state, boundary(run, source, leaves)))
    null = MatchedNull(of=intervention, draw=draw)(state, boundary(run, source, leaves))
    assert null.keys() == state.keys()
    differs = []
    for name, before in array_leaves(state).items():
        after, kicked = moved.get(name, np.zeros_like(before)), to_float64(null[name])
        # A donor's or a new value has single precision; sizes are matched in double.
        assert norm(kicked - before) == pytest.approx(norm(after - before), rel=1e-9, abs=1e-15)
        if (before >= 0).all() and (after >= 0).all():
            assert (kicked >= 0).all(), name
        differs.append(norm(after - before) > 0 and not np.allclose(kicked, after, atol=0))
    assert any(differs)
    assert all(same_bits(null[n], state[n]) for n in state if not is_continuous(state[n]))


def test_a_leaf_that_the_treatment_removes_counts_as_zero():
    """A reset heavy ball has no buffers at all, so its null is a kick as large as they were."""
    run = stepped(Recipe.of(trained))
    state = run.sources["moments"].capture()
    at = boundary(run, "moments")
    assert dict(Reset()(state, at)) == {}
    null = MatchedNull(of=Reset())(state, at)
    assert null.keys() == state.keys()
    for name, before in array_leaves(state).items():
        assert norm(to_float64(null[name]) - before) == pytest.approx(norm(before), rel=1e-5)


def test_two_draws_of_a_null_differ_and_the_same_draw_agrees():
    state = stepped(RICH).sources["weights"].capture()
    made = [
        digest(MatchedNull(of=Scale(0.5), draw=draw)(state, boundary(stepped(RICH), "weights")))
        for draw in (0, 0, 1)
    ]
    assert made[0] == made[1] != made[2]


def test_a_kick_moves_the_named_leaves_by_what_it_says():
    run = stepped(RICH)
    before = run.sources["weights"].capture()
    delta = np.arange(5.0)
    after = treated(run, Kick({"0.bias": delta}), "weights")
    assert same_bits(after["0.bias"], add(before["0.bias"], delta))
    torch.testing.assert_close(
        after["0.bias"] - before["0.bias"], torch.arange(5.0), rtol=0, atol=1e-6
    )
    assert all(same_bits(after[name], before[name]) for name in before if name != "0.bias")


def test_a_kick_of_a_plain_number_keeps_it_a_plain_number():
    state: State = {"rate": 0.5, "count": 3, "array": np.zeros(2, dtype=np.float32)}
    kicked = Kick({"rate": 0.25, "count": 2})(state, boundary(stepped(RICH), "weights"))
    assert kicked["rate"] == 0.75
    assert kicked["count"] == 5
    assert [type(kicked[name]) for name in ("rate", "count")] == [float, int]


def test_a_kick_that_does_not_fit_is_refused():
    with pytest.raises(
        UnknownName, match=r"no leaf of weights called '0.wait'; did you mean '0.weight'"
    ):
        treated(stepped(RICH), Kick({"0.wait": 1.0}), "weights")
    with pytest.raises(
        DesignError, match=r"kick of weights/0.bias has shape \[2, 5\]; the leaf has \[5\]"
    ):
        treated(stepped(RICH), Kick({"0.bias": np.ones((2, 5))}), "weights")


@pytest.mark.parametrize("source", ["moments", "batchnorm", "averages", "weights"])
def test_a_held_source_is_the_same_at_every_boundary_of_the_window(source: str):
    run = Run(RICH, 0)
    seen: list[str] = []
    window = Window(3, 7)
    run.advance(
        10,
        [Treatment(source, Hold(), window)],
        at_boundary=lambda r: seen.append(digest(r.sources[source].capture())),
    )
    assert len({*seen[3:7]}) == 1
    assert len({*seen[:4]}) == 4
    assert len({*seen[6:]}) == 4  # it moves on again


def test_holding_from_the_first_step_holds_what_is_there_then():
    run, reset = Run(RICH, 0), Run(RICH, 0)
    run.advance(4, [Treatment("moments", Hold(), Window(0, 4))])
    reset.advance(4, [Treatment("moments", Reset(), Window(0, 4))])
    assert run.snapshot().states["weights"].keys() == reset.snapshot().states["weights"].keys()
    assert digest(run.snapshot().states["weights"]) == digest(reset.snapshot().states["weights"])


def test_holding_what_does_not_exist_yet_is_refused():
    with pytest.raises(DesignError, match=r"holding only '\*/exp_avg\*' of moments from step 0"):
        Run(RICH, 0).advance(3, [Treatment("moments", Hold(), Window(0, 3), "*/exp_avg*")])


def test_resetting_part_of_what_a_new_one_lacks_is_refused():
    run = stepped(Recipe.of(trained, optimizer="nadam"))
    with pytest.raises(DesignError, match=r"a new one does not have 0.bias/exp_avg, .* yet"):
        treated(run, Reset(), "moments", "*/exp_avg*")


@pytest.mark.parametrize("source", ["moments", "weights", "batchnorm", "history"])
def test_permuting_keeps_the_multiset_of_each_leaf(source: str):
    run = stepped(Recipe.of(assorted) if source == "history" else RICH)
    before = run.sources[source].capture()
    after = treated(run, Permute(), source)
    moved = 0
    for name in before:
        if is_continuous(before[name]):
            one, other = to_float64(before[name]).ravel(), to_float64(after[name]).ravel()
            assert np.sort(one).tobytes() == np.sort(other).tobytes()
            moved += not np.array_equal(one, other)
        else:
            assert same_bits(before[name], after[name])
    assert moved


def shown(run: Run, until: int, treatments: list[Treatment]) -> list[tuple[int, ...]]:
    """The rows of each batch from here to `until`, as the treated run shows them."""
    rows: list[tuple[int, ...]] = []

    def look_ahead(run: Run) -> None:
        rows.append(tuple(replace(run.parts.cursor).next().tolist()))

    run.advance(until, treatments, at_boundary=look_ahead)
    return rows


@pytest.mark.parametrize("intervention", [SwapWindows(), Permute(), Permute(draw=1)], ids=str)
@pytest.mark.parametrize("window", [Window(2, 8), Window(1, 3), Window(0, 4)], ids=str)
def test_a_rearranged_window_shows_the_same_batches_and_is_on_course_after_it(
    intervention: AbstractIntervention, window: Window
):
    straight = shown(Run(RICH, 0), 12, [])
    rearranged = shown(Run(RICH, 0), 12, [Treatment("order", intervention, window)])
    inside = slice(window.start, window.stop)
    assert sorted(rearranged[inside]) == sorted(straight[inside])
    assert rearranged[: window.start] == straight[: window.start]
    assert rearranged[window.stop :] == straight[window.stop :]
    if isinstance(intervention, SwapWindows):
        half = window.start + window.length // 2
        assert rearranged[inside] == straight[half : window.stop] + straight[window.start : half]


def test_a_window_of_many_batches_is_really_rearranged():
    straight = shown(Run(RICH, 0), 12, [])
    for draw in (0, 1):
        other = shown(Run(RICH, 0), 12, [Treatment("order", Permute(draw), Window(0, 9))])
        assert other != straight


def test_two_swaps_one_inside_the_other_still_show_every_batch():
    straight = shown(Run(RICH, 0), 14, [])
    outer = Treatment("order", SwapWindows(), Window(2, 10))
    inner = Treatment("order", SwapWindows(), Window(4, 8))
    rearranged = shown(Run(RICH, 0), 14, [outer, inner])
    assert sorted(rearranged) == sorted(straight)
    assert rearranged[10:] == straight[10:]


@pytest.mark.parametrize("role", ["dropout", "augmentation", "numpy", "python"])
def test_reseed_redraws_its_own_stream_once(role: str):
    run = stepped(RICH)
    before = run.sources["streams"].capture()
    treatment = Treatment("streams", Reseed(), Window(STEP, STEP + 3), role)
    run.advance(STEP + 3, [treatment])
    after = run.sources["streams"].capture()
    assert {name for name in before if before[name] != after[name]} == {role}
    once = stepped(RICH)
    once.advance(STEP + 1, [treatment])
    assert once.sources["streams"].capture() == after


def test_reseed_changes_only_what_that_stream_draws():
    def treated_losses(role: str) -> list[float]:
        run = Run(Recipe.of(trained, dropout=0.0), 0)
        run.advance(6, [Treatment("streams", Reseed(), Window(3, 4), role)])
        return run.losses

    control = Run(Recipe.of(trained, dropout=0.0), 0)
    control.advance(6)
    assert treated_losses("dropout") == control.losses  # nothing draws from it without dropout
    assert treated_losses("augmentation")[:3] == control.losses[:3]
    assert treated_losses("augmentation")[3] != control.losses[3]


def test_two_reseeds_with_one_draw_agree_and_with_another_differ():
    def key(draw: int) -> int:
        return treated(stepped(RICH), Reseed(draw), "order")["key"]

    assert key(0) == key(0) != key(1)
    order = treated(stepped(RICH), Reseed(), "order")
    assert order["position"] == STEP
    assert same_bits(order["detour"], stepped(RICH).sources["order"].capture()["detour"])


@pytest.mark.parametrize(
    "source", ["weights", "moments", "batchnorm", "averages", "order", "streams"]
)
def test_a_transplant_brings_the_donors_values_counters_and_all(source: str):
    donor = stepped(RICH, seed=99).sources[source].capture()
    run = stepped(RICH)
    assert digest(run.sources[source].capture()) != digest(donor)
    assert digest(treated(run, Transplant(), source)) == digest(donor)


def test_a_replaced_policy_holds_for_its_window_and_is_put_back():
    straight = shown(Run(RICH, 0), 12, [])
    window = Window(3, 7)
    replaced = shown(
        Run(RICH, 0), 12, [Treatment("order", Replace({"policy": Sequential(12, 4)}), window)]
    )
    lines = [tuple(range(4 * (step % 3), 4 * (step % 3) + 4)) for step in range(12)]
    assert replaced[3:7] == lines[3:7]
    assert replaced[:3] == straight[:3]
    assert replaced[7:] == straight[7:]


def test_a_replaced_setting_is_put_back_and_what_ran_on_is_not():
    run = Run(contrastive, 0)
    at: list[Mapping[str, Leaf]] = []
    treatment = Treatment("pointer", Replace({"at": 4}), Window(2, 4))
    run.advance(6, [treatment], at_boundary=lambda r: at.append(r.sources["pointer"].capture()))
    assert [state["at"] for state in at] == [0, 4, 4, 4, 0, 4]


def test_replacing_a_leaf_that_is_not_there_names_the_nearest():
    with pytest.raises(UnknownName, match=r"no leaf of pointer called 'it'.*did you mean 'at'"):
        Run(contrastive, 0).advance(2, [Treatment("pointer", Replace({"it": 1}), Window(0, 1))])


@pytest.mark.parametrize(
    ("source", "intervention"),
    [
        ("order", Replace({"policy": Reshuffle(12, 3)})),
        ("moments", Hold()),
        ("order", SwapWindows()),
        ("order", Permute()),
    ],
)
def test_a_window_can_be_cut_by_a_snapshot_that_was_bytes(
    source: str, intervention: AbstractIntervention
):
    """A run that stops inside a window and goes on elsewhere ends as if it had not stopped."""
    treatments = [Treatment(source, intervention, Window(2, 8))]
    whole, first, second = Run(RICH, 0), Run(RICH, 0), Run(RICH, 0)
    whole.advance(11, treatments)
    first.advance(5, treatments)
    second.register_policies(treatments)
    second.restore(decode(encode(first.snapshot())))
    second.advance(11, treatments)
    assert second.snapshot().digest() == whole.snapshot().digest()
    plain = Run(RICH, 0)
    plain.advance(11)
    assert plain.snapshot().digest() != whole.snapshot().digest()


ON_NUMBERS = ("carry", "sham", "reset", "scale", "nudge", "matched-null", "hold", "permute")


@pytest.mark.parametrize("verb", ON_NUMBERS)
@pytest.mark.parametrize("source", ["moments", "gradients"])
def test_an_empty_state_is_treated_without_complaint(source: str, verb: str):
    """At step 0 an optimizer holds nothing, and most steps leave no gradient behind."""
    run, control = Run(RICH, 0), Run(RICH, 0)
    treatment = Treatment(source, EXAMPLES[verb], Window(0, LENGTH.get(verb, 1)))
    check_pair(treatment, run.sources[source])
    assert dict(run.sources[source].capture()) == {}
    run.advance(1, [treatment])
    control.advance(1)
    assert digest(run.snapshot().states) == digest(control.snapshot().states)


# ------------------------------------------------------------------ which null belongs to what


@pytest.mark.parametrize(
    ("source", "intervention", "null"),
    [
        ("moments", Reset(), MatchedNull(of=Reset())),
        ("moments", Carry(), None),
        ("moments", Sham(), None),
        ("order", SwapWindows(), Permute()),
        ("order", Permute(2), Permute(3)),
        ("order", Reseed(), Reseed(1)),
        ("order", Reset(), Reseed(1)),
        ("streams", Reseed(4), Reseed(5)),
        ("scheduler", Reset(), None),
        ("weights", Permute(), MatchedNull(of=Permute())),
    ],
)
def test_each_treatment_has_its_null(
    source: str, intervention: AbstractIntervention, null: AbstractIntervention | None
):
    treatment = Treatment(source, intervention, Window(2, 4), "*")
    if isinstance(null, MatchedNull):
        null = replace(null, against=(treatment,))
    run = Run(RICH, 0)
    found = matched_null(treatment, run.sources[source])
    assert (found.intervention if found else None) == null
    if found is not None:
        assert (found.source, found.window, found.leaves) == (source, Window(2, 4), "*")
        check_pair(found, run.sources[source])


@pytest.mark.parametrize("verb", list(INTERVENTIONS))
def test_an_intervention_goes_by_its_name_in_the_catalogue(verb: str):
    assert EXAMPLES[verb].verb == verb
    assert str(EXAMPLES[verb]).startswith(verb)
