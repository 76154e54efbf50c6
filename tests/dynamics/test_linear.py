"""Derivatives of training steps: exact worlds, every optimizer of torch, and what the check refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bygones
from bygones.core.errors import RecipeError, TangentError
from bygones.dynamics.linear import check_tangent
from bygones.dynamics.linear.float64 import run_in_float64
from bygones.dynamics.linear.reverse import gradient_of, pull_back, push_forward, sweep
from bygones.dynamics.linear.rules import RULES, aten
from bygones.dynamics.linear.tape import Tape
from bygones.dynamics.linear.vectors import dot, moved, replaced, transform, vector_of
from bygones.training.recipe import Recipe, supervised
from bygones.training.run import Run
from bygones.zoo.worlds import heavy_ball

AT = 6


def network(
    seed: int,
    optimizer: str = "SGD",
    settings: tuple[tuple[str, Any], ...] = (("lr", 0.05), ("momentum", 0.9)),
    step: str = "plain",
) -> bygones.Parts:
    """A network with BatchNorm, dropout and a smooth nonlinearity; an EMA; clipped gradients."""
    inputs = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    labels = (inputs[:, 0] > 0).long()
    model = nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.1), nn.Linear(5, 2)
    )
    return bygones.Parts(
        model=model,
        optimizer=getattr(torch.optim, optimizer)(model.parameters(), **dict(settings)),
        averages=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8)),
        data=(inputs, labels),
        order=bygones.Reshuffle(num_examples=48, batch_size=12),
        probe_set=(inputs[:8], labels[:8]),
        train_step=STEPS[step],
        others={"shift": torch.full((4,), 0.1)},
    )


def shifted(parts: bygones.Parts, batch: tuple[Tensor, Tensor], shift: Tensor) -> Tensor:
    return supervised(parts, (batch[0] + shift, batch[1]))


def through_detach(parts: bygones.Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The memory `shift` follows the weights by way of detach, `data` and no_grad."""
    loss = shifted(parts, batch, parts.others["shift"])
    first = next(iter(parts.model.parameters()))
    with torch.no_grad():
        parts.others["shift"].mul_(0.5).add_(first.detach().data[0], alpha=0.1)
    return loss


def through_item(parts: bygones.Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = shifted(parts, batch, parts.others["shift"])
    first = next(iter(parts.model.parameters()))
    parts.others["shift"].mul_(0.5).add_(0.1 * first.detach()[0, 0].item())
    return loss


def through_numpy(parts: bygones.Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = shifted(parts, batch, parts.others["shift"])
    first = next(iter(parts.model.parameters()))
    parts.others["shift"].copy_(torch.from_numpy(0.5 * first.detach().numpy()[0]))
    return loss


def in_float32(parts: bygones.Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    return supervised(parts, (batch[0].float(), batch[1]))


STEPS = {
    "plain": supervised,
    "detach": through_detach,
    "item": through_item,
    "numpy": through_numpy,
    "float32": in_float32,
}


def probe_loss(parts: bygones.Parts) -> Tensor:
    assert parts.probe_set is not None
    parts.model.eval()
    inputs, labels = parts.probe_set
    return nn.functional.cross_entropy(parts.model(inputs), labels)


# ---------------------------------------------------------------------- exact answers


def test_a_linear_world_has_its_closed_form():
    run = Run(heavy_ball.recipe, seed=0)
    run.advance(3)
    start, steps = run.snapshot(), 12
    boundaries = [start]
    for _ in range(steps):
        run.advance(run.step + 1)
        boundaries.append(run.snapshot())
    matrices = heavy_ball.transition(lr=0.1, momentum=0.9)
    powers = np.stack([np.linalg.matrix_power(matrix, steps) for matrix in matrices])
    last = boundaries.pop()
    *_, first = sweep(
        run, last, reversed(boundaries), lambda parts: parts.model.get_parameter("w").sum()
    )
    assert first.step == 3
    by_weights, by_buffer = (
        first.vector["weights"]["w"],
        first.vector["moments"]["w/momentum_buffer"],
    )
    np.testing.assert_allclose(by_weights.numpy(), powers[:, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(by_buffer.numpy(), powers[:, 0, 1], rtol=1e-12)


@pytest.mark.parametrize("recipe", [heavy_ball.recipe, network])
def test_forward_and_reverse_have_one_dot_product(recipe: Any) -> None:
    """⟨λ_0, ż⟩ = ⟨λ_h, T⟩, T by dual numbers."""
    run = run_in_float64(Recipe.of(recipe), seed=0)
    run.advance(AT)
    boundaries = [run.snapshot()]
    for _ in range(4):
        run.advance(run.step + 1)
        boundaries.append(run.snapshot())
    draw = torch.Generator().manual_seed(0)

    def drawn(source: str, name: str, leaf: Tensor) -> Tensor:
        return torch.randn(leaf.shape, generator=draw, dtype=torch.float64)

    tangent = start = transform(vector_of(boundaries[0].states), drawn)
    gradient = end = transform(vector_of(boundaries[-1].states), drawn)
    for boundary in boundaries[:-1]:
        tangent = push_forward(run, boundary, tangent).vector
    for boundary in reversed(boundaries[:-1]):
        gradient = pull_back(run, boundary, gradient).vector
    assert dot(gradient, start) == pytest.approx(dot(end, tangent), rel=1e-12)


def test_a_run_that_is_differentiated_goes_on_in_the_same_bits():
    run = Run(network, seed=0)
    run.advance(AT)
    start = run.snapshot()
    run.advance(AT + 1)
    end = run.snapshot()
    pull_back(run, start, vector_of(end.states))
    assert run.snapshot().digest() == end.digest()
    gradient_of(run, start, probe_loss)
    assert run.snapshot().digest() == start.digest()


# ---------------------------------------------------------------------- the check passes


OPTIMIZERS = {
    "SGD": [("momentum", 0.9), ("nesterov", True), ("weight_decay", 1e-2)],
    "Adam": [("amsgrad", True)],
    "AdamW": [("foreach", False)],
    "RMSprop": [("centered", True), ("momentum", 0.5)],
    "Adagrad": [],
    "Adadelta": [],
    "Adamax": [],
    "NAdam": [],
    "RAdam": [],
}


QUICK = ("SGD", "Adam", "RMSprop")
optimizers = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in OPTIMIZERS]
)


@optimizers
def test_every_optimizer_of_torch_has_a_derivative(name: str) -> None:
    recipe = Recipe.of(network, optimizer=name, settings=(("lr", 0.02), *OPTIMIZERS[name]))
    found = check_tangent(recipe, at=AT, steps=1)
    assert {"weights", "batchnorm", "averages"} <= found.errors.keys()
    assert 0.0 < max(found.errors.values()) < 1e-5


def test_what_is_detached_in_the_step_is_followed_all_the_same():
    """A derivative of the state goes through detach: the finite difference says so too."""
    found = check_tangent(Recipe.of(network, step="detach"), at=AT, outcome=probe_loss)
    assert found.errors["shift"] < 1e-5
    assert found.left_out == ("scheduler", "gradients", "order", "streams")
    assert str(found).startswith(
        "derivatives over 2 steps from step 6 equal finite differences to "
    )


# ---------------------------------------------------------------------- the check refuses


def test_fused_updates_are_refused():
    recipe = Recipe.of(network, settings=(("lr", 0.05), ("momentum", 0.9), ("fused", True)))
    with pytest.raises(TangentError, match=r"moments/\S+ .*_fused_sgd.*without fused=True"):
        check_tangent(recipe, at=AT)


def test_running_statistics_without_their_rule_are_refused():
    kind = aten.native_batch_norm.default

    def without_statistics(*args: Any) -> Any:
        return [*RULES[kind](*args)[:3], args[3].detach(), args[4].detach()]

    without_statistics.also_writes = (3, 4)  # type: ignore[attr-defined]
    with pytest.raises(
        TangentError, match=r"batchnorm/1/running_(mean|var) \(0, finite difference "
    ):
        check_tangent(network, at=AT, rules={**RULES, kind: without_statistics})


def test_an_optimizer_that_reads_its_own_numbers_is_refused():
    recipe = Recipe.of(network, optimizer="ASGD", settings=(("lr", 0.02),))
    with pytest.raises(
        TangentError, match=r"moments/\S+/(eta|mu|ax) .*a number is taken out of a tensor"
    ):
        check_tangent(recipe, at=AT, steps=1)


@pytest.mark.parametrize(
    ("step", "why"),
    [("item", "a number is taken out of a tensor"), ("numpy", "the step leaves torch")],
)
def test_a_step_that_leaves_torch_is_refused(step: str, why: str) -> None:
    with pytest.raises(TangentError, match=rf"shift|weights/0.weight \(.*{why}"):
        check_tangent(Recipe.of(network, step=step), at=AT)


def test_a_recipe_that_insists_on_float32_is_refused():
    with pytest.raises(
        RecipeError, match="a tangent is taken in float64, and there the training step"
    ):
        check_tangent(Recipe.of(network, step="float32"), at=AT)


# ---------------------------------------------------------------------- the tape


def test_a_part_of_a_tensor_is_replaced():
    whole, part = torch.arange(6.0).view(3, 2), torch.ones(2)
    weights = torch.arange(1.0, 7.0).view(3, 2)
    with Tape() as tape, torch.no_grad():
        by_whole, by_part = tape.track(whole), tape.track(part)
        whole.t()[:, 1] = 5 * part
        kept = whole.clone()
        whole.zero_()
    shadow = tape.shadow(kept)
    assert shadow is not None
    np.testing.assert_array_equal(shadow.detach().numpy(), kept.numpy())
    found = torch.autograd.grad((shadow * weights).sum(), (by_whole, by_part))
    assert found[0].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert found[1].tolist() == [15, 20]
    assert tape.dropped == []


def test_what_is_drawn_is_constant_and_what_has_no_derivative_is_named():
    x = torch.linspace(0.1, 0.9, 4)
    with Tape() as tape, torch.no_grad():
        start = tape.track(x)
        noise = torch.rand_like(x)
        y = x * noise
        z = x.heaviside(x)
    found = torch.autograd.grad(tape.shadow(y).sum(), start)[0]  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.numpy(), noise.numpy())
    assert tape.shadow(z) is None
    assert tape.dropped == ["aten.heaviside.default has no derivative"]


def test_a_square_root_has_the_derivative_0_at_0():
    with Tape() as tape, torch.no_grad():
        x = torch.tensor([0.0, 4.0])
        start = tape.track(x)
        x.sqrt_()
    assert torch.autograd.grad(tape.shadow(x).sum(), start)[0].tolist() == [0.0, 0.25]  # type: ignore[union-attr]


def test_vectors_are_moved_and_put_back():
    run = Run(heavy_ball.recipe, seed=0)
    run.advance(2)
    here = vector_of(run.snapshot().states)
    assert {source: list(leaves) for source, leaves in here.items()} == {
        "weights": ["w"],
        "moments": ["w/momentum_buffer"],
    }
    along = {"weights": {"w": torch.ones(3, dtype=torch.float64)}}
    there = replaced(run.snapshot(), moved(here, along, 0.5))
    assert torch.equal(there.states["weights"]["w"], here["weights"]["w"] + 0.5)
    assert torch.equal(
        there.states["moments"]["w/momentum_buffer"], here["moments"]["w/momentum_buffer"]
    )
