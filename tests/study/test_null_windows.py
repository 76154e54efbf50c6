"""The matched null of a window: as far from the control as the treated arm is, at every boundary of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.core.values import Window
from bygones.store import FolderStore, MemoryStore, unpack_meta
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.training.interventions import (
    AbstractIntervention,
    Hold,
    MatchedNull,
    Permute,
    Reset,
    Scale,
    Transplant,
)
from bygones.training.orders import Reshuffle
from bygones.training.probes import Carrier
from bygones.training.recipe import Parts
from bygones.training.run import Run
from bygones.training.treatment import Treatment, check_pair

FORK, END = 5, 26
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "centered": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
}


def small(seed: int, optimizer: str = "adam") -> Parts:
    """A small classifier with BatchNorm."""
    rng = np.random.default_rng(0)
    data = torch.tensor(rng.normal(size=(64, 6)), dtype=torch.float32)
    labels = (data[:, 0] + data[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    return Parts(
        model=model,
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        data=(data, labels),
        order=Reshuffle(64, 8),
        averages=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
        probe_set=(data[:16], labels[:16]),
    )


def sgd(seed: int) -> Parts:
    return small(seed, "sgd")


def adam(seed: int) -> Parts:
    return small(seed, "adam")


def rmsprop(seed: int) -> Parts:
    return small(seed, "rmsprop")


def centered(seed: int) -> Parts:
    return small(seed, "centered")


def amsgrad(seed: int) -> Parts:
    return small(seed, "amsgrad")


RULES: dict[str, AbstractIntervention] = {
    "reset": Reset(),
    "hold": Hold(),
    "scale down": Scale(0.5),
    "scale up": Scale(1.2),
    "permute": Permute(),
}


def windowed(length: int, source: str) -> list[Arm]:
    window = Window(FORK, FORK + length)
    return [
        Arm(f"{name} {source}", Treatment(source, rule, window))
        for name, rule in RULES.items()
        if not (name == "hold" and length == 1)  # changes nothing
        if not (name in ("reset", "scale up") and source == "weights")
    ]


@pytest.mark.parametrize("recipe", [sgd, adam, rmsprop])
@pytest.mark.parametrize("source", ["moments", "batchnorm", "weights", "averages"])
@pytest.mark.parametrize("length", [1, 5, pytest.param(20, marks=pytest.mark.long)])
def test_a_null_is_displaced_as_far_as_its_treated_arm(recipe, source: str, length: int):
    """Seen in the carriers of the study's arms, at every boundary of the window; and so it is recorded."""
    arms = windowed(length, source)
    study = Study(recipe, arms, FORK, range(length), seeds=(0, 1), probe=Carrier(source))
    outcomes = measure(study)
    carriers = outcomes["values"]
    recorded = {
        arm.null_of: arm.null_ratio for arm in facts_of(outcomes).arms if arm.role == "null"
    }
    assert recorded.keys() == {arm.name for arm in arms}
    for arm in arms:
        treated, null = (
            np.linalg.norm(carriers.sel(arm=name) - carriers.sel(arm="control"), axis=(-2, -1))
            for name in (arm.name, f"null of {arm.name}")
        )
        moved = treated > 0  # what is held is where it was at the first boundary
        assert moved.any()
        np.testing.assert_allclose(null[moved] / treated[moved], 1.0, rtol=1e-3)
        assert recorded[arm.name] == pytest.approx((1.0, 1.0), abs=1e-3)


def test_the_displacements_are_those_of_the_studys_own_arms():
    """The control and the treated arm that go beside a null are the study's own, to the bit."""
    window = Window(FORK, FORK + 4)
    arm = Arm("hold", Treatment("moments", Hold(), window))
    study = Study(adam, [arm], FORK, (10,), seeds=(0,))
    planned = plan(study, MemoryStore())
    null = next(one for one in planned.arms if one.role == "null")
    taken: dict[str, list[np.ndarray]] = {}
    for name, treatments in (("control", ()), ("treated", arm.treatments)):
        run = Run(adam, 0)
        taken[name] = []

        def keep(run: Run, name: str = name) -> None:
            if run.step in window:
                state = run.sources["moments"].capture()
                flat = [np.ravel(leaf.numpy()) for leaf in state.values() if leaf.ndim]
                taken[name].append(np.concatenate(flat))

        run.advance(window.stop, treatments, at_boundary=keep)
    expected = [
        np.linalg.norm(t.astype(float) - c)
        for t, c in zip(taken["treated"], taken["control"], strict=True)
    ]
    outcomes = measure(study, planned.store, planned=planned)
    (rule,) = (t.intervention for t in null.treatments)
    assert isinstance(rule, MatchedNull)
    assert rule.against == arm.treatments
    store = planned.store
    seen = [
        one
        for segment in planned.tree.segments
        if null.name in segment.arms
        for record in store.records(planned.addresses.history(0, segment.history)).values()
        if record["observed"]
        for one in unpack_meta(store.get(record["observed"])).get("displacements", [])
    ]
    assert [one["step"] for one in seen] == list(range(window.start, window.stop))
    assert [one["treated"] for one in seen] == pytest.approx(expected, rel=1e-12)
    assert outcomes.sizes["seed"] == 1


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_null_that_is_continued_within_its_window_is_the_same(tmp_path, lanes: int):
    """A later study with a longer horizon begins where the first one stopped, in the middle of the window."""
    window, later = Window(FORK, FORK + 8), Window(FORK + 3, FORK + 4)
    arms = [
        Arm("hold", Treatment("moments", Hold(), window)),
        Arm(
            "two",
            [Treatment("moments", Hold(), window), Treatment("batchnorm", Reset(), later)],
        ),
    ]
    store = FolderStore(tmp_path / "store")

    def study(horizons: tuple[int, ...]) -> Study:
        return Study(adam, arms, FORK, horizons, seeds=(0, 1))

    measure(study((7, 12)), store, lanes=lanes)
    continued = measure(study((7, 12, 20)), store, lanes=lanes)
    at_once = measure(study((7, 12, 20)), lanes=lanes)
    np.testing.assert_array_equal(continued["logits"].values, at_once["logits"].values)


def test_an_arm_treated_at_two_boundaries_is_followed_too():
    """Two treatments at different steps: at the second, the null is where the treated arm is by then."""
    arm = Arm(
        "twice",
        [
            Treatment("moments", Reset(), Window(FORK, FORK + 1)),
            Treatment("moments", Transplant(), Window(FORK + 6, FORK + 7)),
        ],
    )
    outcomes = measure(Study(sgd, [arm], FORK, (12,), seeds=(0, 1)))
    ratio = facts_of(outcomes).arms[-1].null_ratio
    assert ratio == pytest.approx((1.0, 1.0), abs=1e-3)


@pytest.mark.parametrize(("recipe", "leaf"), [(centered, "grad_avg"), (amsgrad, "max_exp_avg_sq")])
def test_leaves_with_an_inequality_between_them_have_no_null_and_it_is_said(recipe, leaf: str):
    outcomes = measure(
        Study(
            recipe,
            [Arm("reset", Treatment("moments", Reset(), Window(5, 6)))],
            5,
            (3,),
            seeds=(0, 1),
        )
    )
    arms = facts_of(outcomes).arms
    assert [arm.role for arm in arms] == ["control", "sham", "treated"]
    assert leaf in arms[-1].no_null


def test_a_null_over_several_boundaries_is_added_by_the_study_alone():
    run = Run(adam, 0)
    run.advance(2)
    treatment = Treatment("moments", MatchedNull(of=Hold()), Window(2, 5))
    with pytest.raises(DesignError, match="Give the arm hold: its null is added by itself"):
        check_pair(treatment, run.sources["moments"])
