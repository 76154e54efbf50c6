"""Reverse sweep: the derivative of an outcome by every array of floats, at every boundary of a run.

    z_{t+1} = F_t(z_t),   J_t = ∂F_t/∂z_t,   λ_h = ∂Y/∂z_h,   λ_t = J_tᵀ λ_{t+1} = ∂Y/∂z_t

F_t: one training step as the recipe takes it (batch, forward and backward pass, update, averages) between
two snapshots. Y: a number made of the run at the last boundary. The first-order effect on Y of moving the
state by Δ at step t is ⟨λ_t, Δ⟩. Griewank & Walther, Evaluating Derivatives (2008), chapter 3.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bygones.core.errors import RecipeError
from bygones.core.text import describe_error
from bygones.dynamics.linear.rules import RULES, Operation, Rule
from bygones.dynamics.linear.tape import Tape
from bygones.dynamics.linear.vectors import Vector, each, replaced, transform, vector_of
from bygones.training.generators import with_seeded_generators
from bygones.training.recipe import Parts
from bygones.training.run import Run, Snapshot

Outcome = Callable[[Parts], Tensor]  # a number made of a run's parts, as a tensor []


@dataclass(frozen=True)
class Gradient:
    """The gradient of the outcome at a boundary. `dropped`: what had no derivative on the way, in words."""

    step: int
    vector: Vector
    dropped: tuple[str, ...] = ()


def pull_back(
    run: Run, snapshot: Snapshot, after: Vector, rules: Mapping[Operation, Rule] = RULES
) -> Gradient:
    """Pull a gradient back over one training step: λ_t = J_tᵀ λ_{t+1}.

    `snapshot`: the boundary t, `after`: λ_{t+1}. The run is left at t + 1. Raises `RecipeError` if the step,
    or the derivative of an operation in it, raises.
    """
    leaves = transform(vector_of(snapshot.states), lambda source, name, leaf: leaf.detach().clone())
    tape = Tape(rules)
    with tape:
        starts = transform(leaves, lambda source, name, leaf: tape.track(leaf))
        run.restore(replaced(snapshot, leaves))
        run.advance(snapshot.step + 1)
        end = vector_of({name: source.capture() for name, source in run.sources.items()})
    outputs: list[Tensor] = []
    weights: list[Tensor] = []
    for source, name, leaf in each(end):
        shadow, weight = tape.shadow(leaf), after.get(source, {}).get(name)
        if shadow is not None and shadow.requires_grad and weight is not None:
            outputs.append(shadow)
            weights.append(weight.to(shadow.dtype))
    return Gradient(
        snapshot.step,
        _gradients(run, outputs, weights, starts),
        _dropped(tape, taken_by_the_loop=1),
    )


def push_forward(
    run: Run, snapshot: Snapshot, tangent: Vector, rules: Mapping[Operation, Rule] = RULES
) -> Gradient:
    """Push a tangent forward over one training step, by dual numbers: ż_{t+1} = J_t ż_t.

    Leaves that `tangent` does not name do not move. The run is left at t + 1.
    """
    leaves = transform(vector_of(snapshot.states), lambda source, name, leaf: leaf.detach().clone())
    tape = Tape(rules)
    with forward_ad.dual_level():
        with (
            warnings.catch_warnings()
        ):  # the first dual number compiles rules with a deprecated call
            warnings.simplefilter("ignore", DeprecationWarning)
            for source, name, leaf in each(leaves):
                moves = tangent.get(source, {}).get(name)
                tape.track(leaf, torch.zeros_like(leaf) if moves is None else moves.to(leaf.dtype))
        with tape:
            run.restore(replaced(snapshot, leaves))
            run.advance(snapshot.step + 1)
            end = vector_of({name: source.capture() for name, source in run.sources.items()})

        def moved(source: str, name: str, leaf: Tensor) -> Tensor:
            shadow = tape.shadow(leaf)
            found = None if shadow is None else forward_ad.unpack_dual(shadow).tangent
            return torch.zeros_like(leaf) if found is None else found.detach().clone()

        return Gradient(run.step, transform(end, moved), _dropped(tape, taken_by_the_loop=1))


def gradient_of(
    run: Run, snapshot: Snapshot, outcome: Outcome, rules: Mapping[Operation, Rule] = RULES
) -> tuple[float, Gradient]:
    """Return the outcome at a boundary, and its gradient there: Y and λ_h = ∂Y/∂z_h."""
    leaves = transform(vector_of(snapshot.states), lambda source, name, leaf: leaf.detach().clone())
    tape = Tape(rules)
    with tape:
        starts = transform(leaves, lambda source, name, leaf: tape.track(leaf))
        run.restore(replaced(snapshot, leaves))
        value = evaluate(run, outcome)
    shadow = tape.shadow(value)
    outputs = [shadow] if shadow is not None and shadow.requires_grad else []
    vector = _gradients(run, outputs, [torch.ones_like(one) for one in outputs], starts)
    return float(value), Gradient(snapshot.step, vector, _dropped(tape))


def evaluate(run: Run, outcome: Outcome) -> Tensor:
    """Evaluate an outcome of a run where it stands, in the modes that its modules are in; leaves no trace."""
    flags = [(module, module.training) for module in run.parts.model.modules()]
    with torch.no_grad(), with_seeded_generators(run.parts.keys, run.step):
        try:
            return outcome(run.parts)
        finally:
            for module, training in flags:
                module.training = training


def sweep(
    run: Run,
    last: Snapshot,
    before: Iterable[Snapshot],
    outcome: Outcome,
    rules: Mapping[Operation, Rule] = RULES,
) -> Iterator[Gradient]:
    """Yield the gradient at a run's last boundary, then at each before it.

    `before`: the boundaries before the last, one step apart, backwards. Each step is taken once more.
    """
    _, gradient = gradient_of(run, last, outcome, rules)
    yield gradient
    for snapshot in before:
        gradient = pull_back(run, snapshot, gradient.vector, rules)
        yield gradient


def _dropped(tape: Tape, taken_by_the_loop: int = 0) -> tuple[str, ...]:
    """List what a block dropped. The training loop itself takes one number out of a step, its loss."""
    taken = tape.numbers_taken > taken_by_the_loop
    numbers = ("a number is taken out of a tensor (item, float, an if)",) if taken else ()
    return (*tape.dropped, *numbers)


def _gradients(
    run: Run, outputs: Sequence[Tensor], weights: Sequence[Tensor], starts: Vector
) -> Vector:
    inputs = [start for _, _, start in each(starts)]
    if not outputs:
        return transform(starts, lambda source, name, start: torch.zeros_like(start))
    try:
        found = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        raise RecipeError(
            f"the training step of {run.recipe} cannot be differentiated: torch "
            f"{describe_error(error, f'at step {run.step}, seed {run.seed}')}."
        ) from error
    by_input = {id(start): grad for start, grad in zip(inputs, found, strict=True)}

    def gradient(source: str, name: str, start: Tensor) -> Tensor:
        grad = by_input[id(start)]
        return torch.zeros_like(start) if grad is None else grad.detach()

    return transform(starts, gradient)
