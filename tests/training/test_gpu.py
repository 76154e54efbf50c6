"""On a GPU: the same promises as on the CPU. Skipped where there is none."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import lane_recipes
from tests.helpers.lane_recipes import LANED
from tests.training.test_lanes import ARMS, LANES_PAY, SEEDS, a_study, apart

from bygones.core.digest import same_bits
from bygones.store import FolderStore
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.training.contract import Contract
from bygones.training.fork_check import check_fork
from bygones.training.lanes import BatchedRuns
from bygones.training.lanes.lane_width import TOLERANCE, choose_lanes
from bygones.training.run import Run
from bygones.zoo.regimes import digits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

GPU = "cuda"


@pytest.fixture(autouse=True)
def in_force():
    with Contract.here(device=GPU).in_force():
        yield


@pytest.mark.parametrize("recipe", [digits.recipe, lane_recipes.sgd, lane_recipes.adamw])
def test_forks_are_bit_equal(recipe: Any) -> None:
    certificate = check_fork(recipe, at=[1, 6], until=9, device=GPU)
    assert "weights" in certificate.needed


def test_a_seed_begins_with_the_same_weights_and_sees_the_same_batches_as_on_the_cpu() -> None:
    here, there = (Run(lane_recipes.augmented, 0, device) for device in ("cpu", GPU))
    assert same_bits(here.sources["weights"].capture(), there.sources["weights"].capture())
    here.advance(5)
    there.advance(5)
    assert here.batch_chain == there.batch_chain
    assert here.losses == pytest.approx(there.losses, rel=1e-3)
    assert all(leaf.is_cuda for leaf in there.snapshot().states["weights"].values())


@pytest.mark.parametrize("name", LANED)
def test_a_lane_is_the_single_run_and_does_not_know_its_neighbours(name: str) -> None:
    lanes = BatchedRuns([Run(LANED[name], seed, GPU) for seed in SEEDS], 8)
    others = BatchedRuns([Run(LANED[name], seed, GPU) for seed in (5, 2, 7, 0)], 8)
    lanes.advance(6)
    others.advance(6)
    for seed, run in zip(SEEDS, lanes.runs, strict=True):
        alone = Run(LANED[name], seed, GPU)
        alone.advance(6)
        assert apart(run.snapshot(), alone.snapshot()) <= TOLERANCE
    for seed, place in ((0, 3), (2, 1)):
        assert lanes.runs[seed].snapshot().digest() == others.runs[place].snapshot().digest()


def test_a_step_is_one_graph_and_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = BatchedRuns([Run(lane_recipes.adamw, seed, GPU) for seed in SEEDS], 8)
    replayed.advance(6)
    monkeypatch.setattr("bygones.training.lanes.gradients.capture_graph", lambda step, *_: step)
    launched = BatchedRuns([Run(lane_recipes.adamw, seed, GPU) for seed in SEEDS], 8)
    launched.advance(6)
    for one, other in zip(replayed.runs, launched.runs, strict=True):
        assert one.snapshot().digest() == other.snapshot().digest()


@pytest.mark.parametrize("lanes", [1, 8])
def test_a_study_goes_on_from_its_store_and_its_sham_is_exactly_zero(
    lanes: int, tmp_path: Any
) -> None:
    store = FolderStore(tmp_path / "store")
    study = a_study(range(3), arms=ARMS)
    measure(a_study(range(3), arms=ARMS[:2]), store, lanes=lanes, device=GPU)
    grown = measure(study, store, lanes=lanes, device=GPU)
    assert plan(study, store, lanes=lanes, device=GPU).steps_left == 0
    assert np.array_equal(grown.sel(arm="sham").logits, grown.sel(arm="control").logits)
    whole = measure(study, lanes=lanes, device=GPU)
    assert np.array_equal(grown.logits, whole.logits)
    assert grown.attrs["contract"]["gpu"]


def test_wide_lanes_are_chosen_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bygones.study.plan.choose_lanes", partial(choose_lanes, timer=LANES_PAY))
    planned = plan(a_study(range(64)), lanes="auto", device=GPU)
    assert planned.contract.lanes == 64
