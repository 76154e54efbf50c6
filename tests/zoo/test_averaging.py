"""Weight averaging on digits: BatchNorm is recomputed exactly, the gap closes, the window rule speaks."""

from __future__ import annotations

import numpy as np
import torch

from bygones.core.digest import digest
from bygones.core.values import Window
from bygones.study.design import Arm, Study, design_findings
from bygones.training.interventions import Hold, Kick, Reset
from bygones.training.probes import Carrier
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import averaging
from bygones.zoo.regimes.averaging import AveragedLogits, averaged_model, recompute_batchnorm


def test_a_second_recomputation_gives_the_same_bits():
    run = Run(averaging.recipe, 0)
    run.advance(30)
    model = averaged_model(run.parts, "averages")
    sums = []
    for _ in range(3):
        sums.append(digest({name: b.clone() for name, b in model.named_buffers()}))
        recompute_batchnorm(model, run.parts.data[0])
    sums.append(digest({name: b.clone() for name, b in model.named_buffers()}))
    assert sums[1] == sums[2] == sums[3] != sums[0]


def gaps_after(lr: float) -> np.ndarray:
    """Logit distance of EMA and of window to the last iterate, 60 steps after the learning rate is `lr`: [2].

    Both have forgotten the iterates of the old one by then: 0.8^60 is 2e-6.
    """
    run = Run(Recipe.of(averaging.recipe, decay=0.8), 0)
    run.advance(40)
    run.parts.optimizers[""].param_groups[0]["lr"] = lr
    run.advance(100)
    last, *others = (
        run.observe(AveragedLogits(name), check=False) for name in ("model", "averages", "window")
    )
    return np.array([np.abs(averaged - last).mean() for averaged in others])


def test_the_gap_to_the_last_iterate_vanishes_with_the_learning_rate():
    gaps = [gaps_after(lr) for lr in (0.1, 0.01, 0.001)]
    assert np.all(gaps[0] > 2 * gaps[1])
    assert np.all(gaps[1] > 2 * gaps[2])
    assert gaps_after(0.0)[1] < 1e-5  # the mean of W equal rows, to rounding


def test_the_window_is_the_mean_of_the_last_iterates_and_forgets_after_exactly_as_many_steps():
    size = 5
    control, treated = (Run(Recipe.of(averaging.recipe, window=size), 0) for _ in range(2))
    kept: list[torch.Tensor] = []
    for step in range(1, 9):
        control.advance(step)
        kept.append(
            torch.nn.utils.parameters_to_vector(control.parts.model.parameters()).detach().clone()
        )
    served = averaged_model(control.parts, "window").parameters()
    torch.testing.assert_close(
        torch.nn.utils.parameters_to_vector(served), torch.stack(kept[-size:]).mean(dim=0)
    )
    treated.advance(8)
    treated.intervene([Treatment("iterates", Kick({"ring": 1.0}), Window(8, 9))])
    gaps = []
    for step in range(8, 8 + size + 2):
        one, other = (r.observe(Carrier("iterates"), check=False) for r in (control, treated))
        gaps.append(float(np.abs(one - other).max()))
        for run in (control, treated):
            run.advance(step + 1)
    assert [place for place, far in enumerate(gaps) if far > 0] == list(range(size))


def test_a_treatment_longer_than_the_average_remembers_is_named():
    """EMA 0.95 has an e-fold of 19.5 steps, and the ring one of exactly 20."""

    def findings(source: str, length: int) -> list[str]:
        arm = Arm("held", Treatment(source, Hold(), Window(40, 40 + length)))
        study = Study(averaging.recipe, [arm], 40, (0, 1, 300), seeds=(0,))
        return design_findings(study, Run(averaging.recipe, 0))

    for source in ("averages", "iterates"):
        (finding,) = findings(source, 200)
        assert finding.startswith(f"Window longer than the memory: {source}"), finding
        assert findings(source, 20) == []


def test_an_average_followed_for_less_than_it_remembers_is_named():
    for source in ("averages", "iterates"):
        arm = Arm("reset", Treatment(source, Reset(), Window(40, 41)))
        study = Study(averaging.recipe, [arm], 40, (0, 5), seeds=(0,))
        (finding,) = design_findings(study, Run(averaging.recipe, 0))
        assert finding.startswith(f"Followed for less than the memory lasts: {source}"), finding
