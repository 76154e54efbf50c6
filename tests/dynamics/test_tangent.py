"""First-order predictions of arms: linear worlds, a quartic one in closed form, refused arms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import classifier
from torch import Tensor, nn

import bygones
from bygones.core.errors import DesignError, UnknownName
from bygones.core.values import Window
from bygones.dynamics import tangent
from bygones.study.design import Arm, Study
from bygones.training.interventions import Hold, Nudge, Reset, Scale, Transplant
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball

LR = 0.1


def quartic(seed: int) -> bygones.Parts:
    """One weight on the loss w⁴/4: w <- w − lr·w³."""

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(1.0 + 0.1 * torch.rand(1, dtype=torch.float64))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * self.w

    def step(parts: bygones.Parts, batch: tuple[Tensor]) -> Tensor:
        loss = 0.25 * (model.w**4).sum()
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        return loss

    model = Point()
    return bygones.Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=LR),
        data=(torch.zeros(4, 1),),
        order=bygones.Sequential(4, 2),
        train_step=step,
    )


def arm(source: str, intervention: object, at: int = 3, leaves: str = "*", stop: int = 0) -> Arm:
    window = Window(at, stop or at + 1)
    return Arm("treated", Treatment(source, intervention, window, leaves))  # type: ignore[arg-type]


def study(recipe: object, treated: Arm, horizons: tuple[int, ...] = (1, 4), num: int = 2) -> Study:
    return Study(recipe, [treated], fork_at=3, horizons=horizons, seeds=range(num), name="tangent")  # type: ignore[arg-type]


@pytest.mark.parametrize("treated", [arm("moments", Reset()), arm("weights", Scale(-2.0))])
def test_in_a_linear_world_the_error_is_0(treated: Arm) -> None:
    found = tangent(study(heavy_ball.recipe, treated, (0, 1, 30)))
    assert found.validated("weights") == found.validated("outputs") == 30
    for space in ("weights", "outputs"):
        assert found.error[space][-1].value < 1e-6
        assert found.cosine[space][-1].value == pytest.approx(1.0, abs=1e-9)
    assert str(found).startswith(
        "First-order prediction of 'treated' at step 3, weights: linear up to horizon 30 of those observed"
    )


def test_in_a_quartic_world_the_error_is_that_of_its_closed_form():
    seeds, horizons, alpha = 3, (0, 1, 6, 12), 0.5
    found = tangent(study(quartic, arm("weights", Scale(alpha)), horizons, seeds))
    errors = np.empty((seeds, len(horizons)))
    for seed in range(seeds):
        parts = bygones.Run(quartic, seed).parts
        w = parts.model.w.item()  # type: ignore[operator]
        for _ in range(3):
            w -= LR * w**3
        treated, first = alpha * w, (alpha - 1) * w
        for place, horizon in enumerate(horizons):
            for _ in range(horizon - (horizons[place - 1] if place else 0)):
                first *= 1 - 3 * LR * w**2
                w, treated = w - LR * w**3, treated - LR * treated**3
            errors[seed, place] = abs(treated - w - first) / abs(treated - w)
    assert set(found.error) == {"weights"}  # there is no probe set
    means = [estimate.value for estimate in found.error["weights"]]
    np.testing.assert_allclose(means, errors.mean(axis=0), rtol=1e-5, atol=1e-9)
    assert 0.05 < means[1] < means[2]
    assert max(found.settled["weights"]) < 1e-4


def test_where_nothing_has_moved_yet_there_is_no_error():
    found = tangent(study(heavy_ball.recipe, arm("moments", Reset()), (0, 1)))
    assert found.error["weights"][0].num_pairs == 0
    assert math.isnan(found.error["weights"][0].value)
    assert found.validated() == 1


def test_an_arm_without_a_tangent_is_refused():
    with pytest.raises(DesignError, match=r"it changes moments/\S+/step.*Select leaves"):
        tangent(study(classifier, arm("moments", Reset())))
    with pytest.raises(DesignError, match="it acts at several steps"):
        tangent(study(heavy_ball.recipe, arm("moments", Hold(), stop=6)))
    with pytest.raises(DesignError, match="it needs another seed's run"):
        tangent(study(heavy_ball.recipe, arm("weights", Transplant())))
    with pytest.raises(DesignError, match="moves nothing at step 3"):
        tangent(study(heavy_ball.recipe, arm("weights", Scale(1.0))))
    with pytest.raises(UnknownName, match="treated"):
        tangent(study(heavy_ball.recipe, arm("weights", Nudge(0.1))), "treted")


def test_moments_of_adam_have_one_without_their_count():
    found = tangent(study(classifier, arm("moments", Scale(0.9), leaves="*/exp_avg")), seeds=[0, 1])
    assert found.error["outputs"][0].num_pairs == 2
    assert 0.0 < found.error["weights"][0].value < 0.2
