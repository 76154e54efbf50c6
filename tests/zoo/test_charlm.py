"""The language model's signatures: AdamW's first updates after a treatment, to the last digits.

update / lr = m̂ / (√v̂ + eps),   m̂ = m / (1 − β₁^t),   v̂ = v / (1 − β₂^t)

all state new           g / (|g| + eps)                                            sign(g)
m, v zeroed, t kept     (1 − β₁) / √(1 − β₂) · √(1 − β₂^t) / (1 − β₁^t) · sign(g)  3.162 late in training
    v zeroed, m and t kept  m̂ √(1 − β₂^t) / (√(1 − β₂) |g|)                            31.6 m̂/|g| late
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from bygones.core.values import Window
from bygones.training.interventions import Reset, Scale
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import charlm

AT = 12
BETA1, BETA2, EPS, DECAY = 0.9, 0.999, 1e-8, 0.01
SMALL = Recipe.of(charlm.recipe, width=8, layers=1)


def first_update(treatment: Treatment | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradient g, the moment m that the update uses, and update / lr without decay; all parameters."""
    run = Run(SMALL, 0)
    run.advance(AT)
    run.intervene([] if treatment is None else [treatment])
    snapshot = run.snapshot()
    batch = run.deliver(run.parts.cursor.next())
    run.parts.loss(run.parts.model(batch[0]), batch[1]).backward()
    torch.nn.utils.clip_grad_norm_(run.parts.model.parameters(), 1.0)
    gradient = [p.grad.double() for p in run.parts.model.parameters() if p.grad is not None]
    run.restore(snapshot)
    lr = learning_rate(run)
    before = [p.detach().double() for p in run.parts.model.parameters()]
    run.advance(AT + 1)
    after = [p.detach().double() for p in run.parts.model.parameters()]
    state = run.sources["moments"].capture()
    moment = [
        torch.as_tensor(state[f"{n}/exp_avg"]).double()
        for n, _ in run.parts.model.named_parameters()
    ]
    update = [(b * (1 - lr * DECAY) - a) / lr for b, a in zip(before, after, strict=True)]
    return flat(gradient), flat(moment), flat(update)


def learning_rate(run: Run) -> float:
    optimizer = run.parts.optimizer
    assert isinstance(optimizer, torch.optim.Optimizer)
    return float(optimizer.param_groups[0]["lr"])


def flat(tensors: list[Tensor]) -> np.ndarray:
    return torch.cat([t.flatten() for t in tensors]).numpy()


def treat(intervention: Reset | Scale, leaves: str = "*") -> Treatment:
    return Treatment("moments", intervention, Window(AT, AT + 1), leaves=leaves)


def test_after_a_reset_the_first_update_is_the_sign_of_the_gradient():
    gradient, _, update = first_update(treat(Reset()))
    assert np.abs(update - gradient / (np.abs(gradient) + EPS)).max() < 2e-3
    large = np.abs(gradient) > 1e-4
    np.testing.assert_allclose(update[large], np.sign(gradient[large]), atol=2e-3)


def test_with_the_step_kept_it_is_larger_by_the_corrections():
    gradient, _, update = first_update(treat(Scale(0.0), "*/exp_avg*"))
    t = AT + 1
    factor = (1 - BETA1) / np.sqrt(1 - BETA2) * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
    large = np.abs(gradient) > 1e-4
    np.testing.assert_allclose(update[large], factor * np.sign(gradient[large]), atol=5e-3 * factor)
    assert (1 - BETA1) / np.sqrt(1 - BETA2) == pytest.approx(3.162, abs=1e-3)


def test_with_only_the_second_moment_zeroed_it_is_the_moment_over_the_gradient():
    gradient, moment, update = first_update(treat(Scale(0.0), "*/exp_avg_sq"))
    t = AT + 1
    large = np.abs(gradient) > 1e-4
    hat = moment[large] / (1 - BETA1**t)
    expected = hat / np.abs(gradient[large]) * np.sqrt((1 - BETA2**t) / (1 - BETA2))
    np.testing.assert_allclose(update[large], expected, rtol=5e-3, atol=5e-3)
    untreated = first_update(None)[2]
    assert np.abs(update[large]).mean() > 2 * np.abs(untreated[large]).mean()


def test_the_carriers_outlast_each_other_by_their_decays():
    run = Run(SMALL, 0)
    run.advance(1)
    moments = run.sources["moments"]
    m, v = (moments.lifetime_of(leaves).steps for leaves in ("*/exp_avg", "*/exp_avg_sq"))
    assert v / m == pytest.approx(np.log(BETA1) / np.log(BETA2))
    assert v / m == pytest.approx((1 - BETA1) / (1 - BETA2), rel=0.06)


def test_the_text_is_the_same_on_every_machine():
    text = charlm.made_up_text((charlm.NUM_TRAIN + charlm.NUM_PROBES) * charlm.CONTEXT + 1)
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "731c91c6d38e733762737f20eaad604d4214fb3496791b79b2bed932beb0af7c"
    )
    assert set(text) <= set(charlm.ALPHABET)


def test_a_prediction_does_not_see_the_future():
    model = Run(SMALL, 0).parts.model
    characters = charlm.windows()[0][:1].clone()
    before = model(characters)
    characters[0, 20:] = 0
    assert torch.equal(model(characters)[:20], before[:20])
    assert not torch.equal(model(characters)[20:], before[20:])
