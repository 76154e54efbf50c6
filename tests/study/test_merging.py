"""Exact merging: what is copied from a control is what training it would have given, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.helpers.study_recipes import TRAINED, at, one, plain
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bygones.analysis.effects import effect
from bygones.analysis.exact_washout import exact_washout
from bygones.core.values import Window
from bygones.store import MemoryStore, unpack
from bygones.study import segment
from bygones.study.certificate import certify
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.training.interventions import Hold, Kick, Permute, Reset, Scale, SwapWindows
from bygones.training.recipe import Parts
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import digits

DECAY, FORK, END = 0.25, 4, 40


def averaged(seed: int) -> Parts:
    """A linear classifier, and an average of it with a short memory that nothing reads."""
    parts = plain(seed)
    parts.averages = AveragedModel(parts.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    return parts


def study(arms: list[Arm], recipe: Any = averaged, seeds: Any = (0, 1), end: int = END) -> Study:
    return Study(recipe, arms, FORK, (1, end - FORK), seeds=seeds)


def records(store: MemoryStore, planned: Any) -> dict[Any, list[Any]]:
    """What a store holds of every segment: objects, snapshots and how it ended, without the proofs."""
    found: dict[Any, list[Any]] = {}
    for seed in planned.study.seeds:
        for one_segment in planned.tree.segments:
            address = planned.addresses.history(seed, one_segment.history)
            found[seed, one_segment.arms] = sorted(
                (name, r.get("observed"), r.get("snapshot"), r.get("diverged_at"))
                for name, r in store.records(address).items()
            )
    return found


def both(of: Study, lanes: int | None = None) -> tuple[Any, Any, int, int]:
    """Measure with and without merging: what the stores hold, and the steps that each took."""
    held: list[Any] = []
    steps: list[int] = []
    for merge in (True, False):
        store = MemoryStore()
        planned = plan(of, store, lanes=lanes)
        certify(planned)
        TRAINED["steps"] = 0
        measure(of, store, planned=planned, merge=merge)
        steps.append(TRAINED["steps"])
        held.append(records(store, planned))
    return held[0], held[1], steps[0], steps[1]


def test_a_sham_is_trained_to_its_end_in_the_first_seed_and_merges_one_step_later_in_the_others():
    of = study([one("scale", Scale(0.5), at(FORK), "weights")])
    merged, whole, fewer, all_steps = both(of)
    assert merged == whole
    assert all_steps - fewer == END - FORK - 1  # of the second seed's sham
    outcomes = measure(of, MemoryStore())
    arms = list(outcomes["arm"].values)
    found = outcomes["equal_from"].values[:, arms.index("sham")]
    assert np.isnan(found[0])
    assert found[1] == FORK + 1


def scaled_average(factor: float, window: Window) -> Arm:
    treatment = Treatment("averages", Scale(factor), window, "module.weight")
    return Arm(f"scale by {factor}", treatment)


def test_an_average_that_nothing_reads_merges_when_it_has_forgotten():
    """EMA, d = 1/4: d^h of a change is left, which is below float32's 2⁻²⁴ after 12 steps."""
    arm = scaled_average(1.5, at(FORK))
    outcomes = measure(study([arm]), MemoryStore())
    by = exact_washout(outcomes, arm.name)
    assert by is not None
    assert FORK + 8 <= by <= FORK + 1 + 16
    assert (
        f"from step {by} on it equals its control in every bit"
        in effect(outcomes, arm.name, END).washed_out
    )
    assert exact_washout(outcomes, "control") is None
    # A reset sets the count of updates to 0, which never becomes the control's.
    lasting = measure(study([one("reset", Reset(), at(FORK), "averages")], end=20), MemoryStore())
    assert exact_washout(lasting, "reset") is None


arms = st.sampled_from(
    [
        one("reset", Reset(), at(FORK)),
        one("hold", Hold(), Window(FORK, FORK + 3)),
        scaled_average(1.001, Window(FORK, FORK + 2)),
        one("swap", SwapWindows(), Window(FORK, FORK + 4), "order"),
        one("permute", Permute(), Window(FORK, FORK + 2), "order"),
        one("kick", Kick({"module.weight": np.full((3, 5), 1e-3)}), at(FORK + 2), "averages"),
    ]
)


@settings(deadline=None, max_examples=4, phases=[Phase.generate])
@given(st.lists(arms, min_size=1, max_size=2, unique_by=lambda arm: arm.name), st.integers(18, 30))
def test_merged_studies_are_unmerged_ones_to_the_bit(chosen, end):
    merged, whole, fewer, all_steps = both(study(chosen, end=end))
    assert merged == whole
    assert fewer < all_steps


@pytest.mark.long
def test_lanes_merge_together_or_not_at_all():
    # Four lanes of a network as large as this one give the same bits in every lane.
    arms = [one("reset", Reset(), at(FORK))]
    of = Study(digits.recipe, arms, FORK, (1, 12), seeds=range(8))
    planned = plan(of, lanes=4)
    assert planned.contract.lanes == 4
    merged, whole, _, _ = both(of, lanes=4)
    assert merged == whole
    found = measure(of, planned=planned)["equal_from"].sel(arm="sham").values
    assert np.isnan(found[:4]).all()  # beside the first seed, whose sham is trained to its end
    assert (found[4:] == FORK + 1).all()


def test_a_merged_arm_is_continued_without_a_step():
    store, arm = MemoryStore(), one("scale", Scale(0.5), at(FORK), "weights")
    measure(study([arm], seeds=(0, 1), end=12), store)
    planned = plan(study([arm], seeds=(0, 1), end=20), store)
    certify(planned)
    TRAINED["steps"] = 0
    measure(planned.study, store, planned=planned)
    # Control, arm and null go on in both seeds, the sham in the first alone.
    assert TRAINED["steps"] == 8 * (3 + 4)
    merged = records(store, planned)
    whole = MemoryStore()
    for end in (12, 20):
        measure(study([arm], seeds=(0, 1), end=end), whole, merge=False)
    assert merged == records(whole, planned)


def test_a_wrong_merge_differs_from_the_unmerged_study(monkeypatch):
    """The comparison that these tests rest on, seen to fail: every state is taken for the control's."""
    of = study([one("scale", Scale(0.5), at(FORK), "weights")])
    monkeypatch.setattr(segment, "mark", lambda snapshot: "alike")
    merged, whole, _, _ = both(of)
    assert merged != whole


def test_what_a_damaged_control_lacks_is_trained():
    """Where the control's record cannot be read, an arm is trained to its end."""
    of, store = study([one("scale", Scale(0.5), at(FORK), "weights")]), MemoryStore()
    planned = plan(of, store)
    measure(of, store, planned=planned)
    sham = next(s for s in planned.tree.segments if s.arms == ("sham",))
    for seed in of.seeds:
        store._records.pop(planned.addresses.history(seed, sham.history))
    control = store.records(planned.addresses.history(1, ()))
    last = next(r for r in control.values() if r["stop"] == END)
    arrays, _ = unpack(store.get(last["observed"]))
    assert len(arrays["losses"]) == END - FORK
    before = TRAINED["steps"]
    measure(of, store)
    assert TRAINED["steps"] - before >= END - FORK + 1


def test_merging_can_be_left_out():
    of = study([scaled_average(1.5, at(FORK))])
    assert "equal_from" not in measure(of, MemoryStore(), merge=False)
