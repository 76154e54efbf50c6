"""The tree of segments: every arm's path, exactly once, at addresses that do not move."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bygones.core.values import Window
from bygones.store import MemoryStore
from bygones.study.design import Arm
from bygones.study.tree import (
    Addresses,
    Tree,
    Work,
    donor_boundaries,
    donor_steps,
    plan_tree,
    remaining,
)
from bygones.training.interventions import (
    Carry,
    Hold,
    Kick,
    Replace,
    Reset,
    Scale,
    SwapWindows,
    Transplant,
)
from bygones.training.orders import ShuffleOnce
from bygones.training.treatment import Treatment

GOLDEN = Path(__file__).parents[1] / "golden"
brief = settings(deadline=None, max_examples=60)

ADDRESSES = Addresses("a" * 64, "b" * 64, "c" * 64)
END = 20


def treatment(source: str, alpha: float, start: int, length: int) -> Treatment:
    return Treatment(source, Scale(alpha), Window(start, start + length))


treatments = st.builds(
    treatment,
    st.sampled_from(["weights", "moments"]),
    st.sampled_from([0.5, 2.0]),
    st.integers(0, END),
    st.integers(1, 6),
)
# Few sources, doses and lengths, so that arms agree for a while, part, and are sometimes identical.
designs = st.lists(
    st.lists(treatments, max_size=3, unique_by=lambda t: t.digest()), min_size=1, max_size=6
).map(lambda lists: [Arm("control"), *(Arm(f"arm {i}", given) for i, given in enumerate(lists))])
designs = designs.flatmap(st.permutations)  # the control need not come first
horizons = st.sets(st.integers(0, END - 1), max_size=5).map(lambda steps: (*sorted(steps), END))


def acts(arm: Arm, step: int, *, at_end: bool = False) -> tuple[str, ...]:
    """What had begun before a step (or at it, `at_end`), in order: an arm's history there."""
    return tuple(t.digest() for t in arm.treatments if t.window.start < step + (1 if at_end else 0))


def named(arms: list[Arm], name: str) -> Arm:
    return next(arm for arm in arms if arm.name == name)


# ------------------------------------------------------------------ every path, exactly once


@brief
@given(designs, horizons)
def test_each_arms_path_leads_from_zero_to_the_end_without_gaps(arms, steps):
    tree = plan_tree(arms, steps)
    for arm in arms:
        path = [tree.segments[index] for index in tree.path(arm.name)]
        assert path[0].start == 0
        assert path[0].parent is None
        assert path[-1].stop == END
        assert path[-1].leaf
        assert not any(segment.leaf for segment in path[:-1])
        for before, after in pairwise(path):
            assert before.stop == after.start
            assert after.parent is not None
            assert tree.segments[after.parent] is before


@brief
@given(designs, horizons)
def test_a_path_carries_exactly_its_arms_treatments(arms, steps):
    tree = plan_tree(arms, steps)
    for arm in arms:
        for index in tree.path(arm.name):
            segment = tree.segments[index]
            given = tuple(t.digest() for t in segment.history)
            assert given == acts(arm, segment.stop, at_end=segment.leaf)


@brief
@given(designs, horizons)
def test_parents_come_before_their_children(arms, steps):
    tree = plan_tree(arms, steps)
    for index, segment in enumerate(tree.segments):
        assert segment.parent is None or segment.parent < index
        assert all(tree.segments[child].parent == index for child in tree.children(index))


@brief
@given(designs, horizons)
def test_every_horizon_is_observed_exactly_once_by_each_arm_and_after_its_treatments(arms, steps):
    tree = plan_tree(arms, steps)
    for arm in arms:
        seen = [s for index in tree.path(arm.name) for s in tree.segments[index].steps]
        assert seen == list(steps)
        for index in tree.path(arm.name):
            segment = tree.segments[index]
            for step in segment.steps:
                begun = {t.digest() for t in segment.history if t.window.start <= step}
                assert begun == set(acts(arm, step, at_end=True))


@brief
@given(designs, horizons)
def test_arms_share_exactly_their_common_past(arms, steps):
    """Two arms are in one segment at a step if and only if they have begun the same until then."""
    tree = plan_tree(arms, steps)
    for one in arms:
        for other in arms:
            for step in range(END):
                together = any(
                    segment.start <= step < segment.stop
                    and {one.name, other.name} <= {*segment.arms}
                    for segment in tree.segments
                )
                assert together == (acts(one, step, at_end=True) == acts(other, step, at_end=True))


@brief
@given(designs, horizons)
def test_steps_are_counted_as_distinct_pasts(arms, steps):
    """Brute force: at each step, as many trainings as there are different pasts among the arms."""
    pasts = {(step, acts(arm, step, at_end=True)) for arm in arms for step in range(END)}
    assert plan_tree(arms, steps).num_steps == len(pasts)


@brief
@given(designs, horizons)
def test_a_new_store_lacks_everything_once(arms, steps):
    tree = plan_tree(arms, steps)
    work = remaining(tree, 0, ADDRESSES, MemoryStore())
    assert [item.index for item in work] == list(range(len(tree.segments)))
    assert sum(item.num_steps for item in work) == tree.num_steps
    assert all(item.steps == tree.segments[item.index].steps for item in work)


# ------------------------------------------------------------------ edges


def test_identical_arms_are_trained_once():
    twins = [Arm(name, treatment("moments", 0.5, 5, 1)) for name in ("one", "two")]
    tree = plan_tree([Arm("control"), *twins], (5, END))
    assert tree.num_steps == 5 + 2 * (END - 5)
    assert ("one", "two") in [segment.arms for segment in tree.segments]


def test_a_fork_at_zero_gives_each_arm_a_root():
    tree = plan_tree([Arm("control"), Arm("a", treatment("weights", 2.0, 0, 1))], (0, END))
    assert [segment.parent for segment in tree.segments] == [None, None]
    assert tree.num_steps == 2 * END


def test_a_treatment_at_the_last_boundary_is_observed_and_costs_nothing():
    tree = plan_tree([Arm("control"), Arm("a", treatment("weights", 2.0, END, 1))], (3, END))
    assert tree.num_steps == END
    leaves = [segment for segment in tree.segments if segment.leaf]
    assert [(leaf.start, leaf.stop, leaf.steps) for leaf in leaves] == [(END, END, (END,))] * 2
    assert [len(leaf.history) for leaf in leaves] == [0, 1]


def test_treatments_of_one_boundary_in_another_order_are_another_past():
    """They need not commute. Found the hard way: the two were trained once, in the first arm's order."""
    first = treatment("moments", 0.5, 2, 1)
    one, other = treatment("weights", 0.5, 5, 1), treatment("weights", 2.0, 5, 1)
    arms = [Arm("control"), Arm("a", [first, one, other]), Arm("b", [first, other, one])]
    tree = plan_tree(arms, (END,))
    assert tree.path("a")[-1] != tree.path("b")[-1]
    assert tree.num_steps == 2 + 2 * 3 + 3 * (END - 5)


def test_arms_treat_in_the_order_of_their_windows():
    early, late = treatment("weights", 0.5, 3, 2), treatment("moments", 0.5, 7, 1)
    assert Arm("a", [late, early]).treatments == (early, late)
    assert plan_tree([Arm("a", [late, early]), Arm("b", [early, late])], (END,)).num_steps == END


# ------------------------------------------------------------------ addresses


def addresses(tree: Tree, seed: int, arm: str) -> dict[int, str]:
    """For each step of an arm, the address under which its training lies."""
    return {
        step: ADDRESSES.history(seed, tree.segments[index].history)
        for index in tree.path(arm)
        for step in range(tree.segments[index].start, tree.segments[index].stop)
    }


@brief
@given(
    designs, horizons, st.lists(treatments, min_size=1, max_size=2, unique_by=lambda t: t.digest())
)
def test_another_arm_leaves_the_leaves_of_the_others_where_they_are(arms, steps, more):
    """It may cut a prefix in two; what lies after the last cut of an arm keeps its address."""
    before, after = plan_tree(arms, steps), plan_tree([*arms, Arm("new", more)], steps)
    for arm in arms:
        last = before.segments[before.path(arm.name)[-1]]
        again = after.segments[after.path(arm.name)[-1]]
        assert ADDRESSES.history(0, last.history) == ADDRESSES.history(0, again.history)
        assert again.start >= last.start


@brief
@given(designs, horizons, st.sets(st.integers(0, END)))
def test_another_horizon_leaves_every_address_where_it_is(arms, steps, more):
    before, after = plan_tree(arms, steps), plan_tree(arms, sorted({*steps, *more}))
    for arm in arms:
        assert addresses(before, 0, arm.name) == addresses(after, 0, arm.name)


@brief
@given(designs, horizons, st.integers(END + 1, END + 9))
def test_a_later_end_leaves_every_address_where_it_is(arms, steps, end):
    before, after = plan_tree(arms, steps), plan_tree(arms, (*steps, end))
    for arm in arms:
        mine, again = addresses(before, 0, arm.name), addresses(after, 0, arm.name)
        assert mine == {step: again[step] for step in mine}


@brief
@given(designs, horizons)
def test_seeds_and_what_a_run_depends_on_have_addresses_of_their_own(arms, steps):
    tree = plan_tree(arms, steps)
    history = tree.segments[-1].history
    variants = [
        ADDRESSES,
        Addresses("d" * 64, "b" * 64, "c" * 64),
        Addresses("a" * 64, "d" * 64, "c" * 64),
    ]
    found = {variant.history(seed, history) for variant in variants for seed in (0, 1, 10)}
    assert len(found) == 9
    assert ADDRESSES.history(0, history) == Addresses("a" * 64, "b" * 64, "e" * 64).history(
        0, history
    )


@brief
@given(designs, horizons)
def test_different_pasts_have_different_addresses(arms, steps):
    tree = plan_tree(arms, steps)
    histories = {tuple(t.digest() for t in segment.history) for segment in tree.segments}
    found = {ADDRESSES.history(0, segment.history) for segment in tree.segments}
    assert len(found) == len(histories)


GOLDEN_HISTORIES: dict[str, tuple[Treatment, ...]] = {
    "nothing": (),
    "reset": (Treatment("moments", Reset(), Window(300, 301)),),
    "reset leaves": (Treatment("moments", Reset(), Window(300, 301), leaves="*/exp_avg*"),),
    "hold": (Treatment("batchnorm", Hold(), Window(300, 320)),),
    "carry": (Treatment("batchnorm", Carry(), Window(300, 320)),),
    "scale": (Treatment("moments", Scale(0.5), Window(300, 301)),),
    "swap": (Treatment("order", SwapWindows(), Window(300, 320)),),
    "transplant": (Treatment("weights", Transplant(), Window(300, 301)),),
    "kick": (Treatment("weights", Kick({"w": np.arange(3.0)}), Window(0, 1)),),
    "policy": (Treatment("order", Replace({"policy": ShuffleOnce(24, 4)}), Window(0, 9)),),
    "two": (
        Treatment("moments", Reset(), Window(300, 301)),
        Treatment("weights", Scale(2.0), Window(310, 311)),
    ),
}


@pytest.mark.parametrize("name", GOLDEN_HISTORIES)
def test_golden_addresses(name):
    """If one of these moves, every stored segment of that kind is trained again by the next version:
    nobody's numbers become wrong, but everybody's stores become useless. Then `_FORMAT` must move too.
    """
    golden = json.loads((GOLDEN / "addresses.json").read_text())
    assert ADDRESSES.history(7, GOLDEN_HISTORIES[name]) == golden[name]


def test_there_is_a_golden_address_for_each_history():
    assert json.loads((GOLDEN / "addresses.json").read_text()).keys() == GOLDEN_HISTORIES.keys()


# ------------------------------------------------------------------ donors and records


def test_donors_are_trained_as_far_as_they_are_looked_at():
    arms = [
        Arm("control"),
        Arm("a", Treatment("weights", Transplant(), Window(5, 6))),
        Arm(
            "b",
            [treatment("weights", 2.0, 3, 1), Treatment("moments", Transplant(), Window(9, 10))],
        ),
    ]
    tree = plan_tree(arms, (5, END))
    work = remaining(tree, 0, ADDRESSES, MemoryStore())
    assert donor_boundaries(tree, work) == [5, 9]
    assert donor_steps(arms) == 9
    assert donor_boundaries(tree, []) == []
    late = [Work(item.index, 12, item.stop, item.steps, None) for item in work if item.stop > 12]
    assert donor_boundaries(tree, late) == []


def test_records_of_different_steps_and_probes_have_different_names():
    """Found the hard way: a horizon added in between replaced the record of those that were there."""
    works = [Work(0, 4, stop, steps, None) for stop in (9, 11) for steps in ((), (4,), (4, 9))]
    names = {work.record_name(probe) for work in works for probe in ("c" * 64, "d" * 64)}
    assert len(names) == 12
