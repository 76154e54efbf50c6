"""Hidden memory is caught and named; a run that keeps the same memory in the open passes.

Each case is a small classifier with one habit. Hidden, the habit's memory lies where no source looks;
in the open it is named in `others`, or is not kept at all.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tests.helpers.specimen_recipes import (
    ORDERS,
    accumulating,
    every_recipe,
    examples,
    mlp,
    trained,
)
from torch import Tensor, nn

from bygones.core.digest import digest, same_bits
from bygones.core.errors import ForkError
from bygones.training.fork_check import check_fork
from bygones.training.probes import Values
from bygones.training.reachable import hash_reachable
from bygones.training.recipe import Memory, Parts, Recipe, supervised
from bygones.training.run import Run

AT, UNTIL = [1, 4], 7


def plain(model: nn.Module, **parts: Any) -> Parts:
    return Parts(
        **{
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
            "data": examples(),
            "order": ORDERS["reshuffle"],
            "probe_set": examples(),
            **parts,
        }
    )


class Counting(nn.Module):
    """Counts its calls in training, and lets the count into its outputs."""

    def __init__(self, keeps: str) -> None:
        super().__init__()
        self.body = mlp(norm=False, dropout=0.0)
        self.keeps = keeps
        self.count = 0
        self._private = 0
        self.queue: deque[float] = deque([0.0] * 4, maxlen=4)
        self.stored = torch.zeros(3)
        self.register_buffer("hidden", torch.zeros(()), persistent=False)
        self.hidden: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.body(inputs)
        if self.training:
            with torch.no_grad():
                match self.keeps:
                    case "counter":
                        self.count += 1
                    case "private":
                        self._private += 1
                    case "deque":
                        self.queue.append(outputs.mean().item())
                    case "tensor":
                        self.stored = 0.5 * self.stored + outputs.mean(0)
                    case "buffer":
                        self.hidden += 1
        shift = self.count + self._private + sum(self.queue) + self.hidden
        return outputs * (1 + 0.1 * torch.sin(torch.as_tensor(shift))) + self.stored


def attribute(seed: int, keeps: str) -> Parts:
    return plain(Counting(keeps))


def closure_list(seed: int, hidden: bool = True) -> Parts:
    model, seen = mlp(), [1.0]

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        scale = 1.0 + 0.1 * (sum(seen) % 1.0)
        loss = scale * parts.loss(parts.model(batch[0]), batch[1])
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        seen.append(loss.item())
        del seen[:-3]
        return loss

    return plain(model, train_step=step, others={} if hidden else {"seen": {"losses": seen}})


CALLS = {"count": 0}


def scaled(loss: Tensor, by: float) -> Tensor:
    return loss * (1 + 0.1 * np.sin(by))


def bump() -> int:
    CALLS["count"] += 1
    return CALLS["count"]


def through_a_helper(seed: int, hidden: bool = True) -> Parts:
    """The helper that the loss calls counts in a global of the module."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return scaled(nn.functional.cross_entropy(outputs, labels), bump())

    def fair(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels)

    return plain(mlp(), loss=loss if hidden else fair)


def module_global(seed: int, hidden: bool = True) -> Parts:
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        CALLS["count"] += 1
        return scaled(nn.functional.cross_entropy(outputs, labels), CALLS["count"])

    parts = plain(mlp(), loss=loss)
    if not hidden:
        CALLS["count"] = 0
        parts.others = {"calls": CALLS}
    return parts


class Shared:
    calls: ClassVar[int] = 0

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        type(self).calls += 1
        return scaled(nn.functional.cross_entropy(outputs, labels), type(self).calls)


def class_attribute(seed: int) -> Parts:
    return plain(mlp(), loss=Shared())


def default_argument(seed: int) -> Parts:
    def loss(outputs: Tensor, labels: Tensor, memo: list[float] = [0.0]) -> Tensor:  # noqa: B006
        memo[0] += 0.7
        return scaled(nn.functional.cross_entropy(outputs, labels), memo[0])

    return plain(mlp(), loss=loss)


def function_attribute(seed: int) -> Parts:
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        vars(loss)["calls"] = vars(loss).get("calls", 0) + 1
        return scaled(nn.functional.cross_entropy(outputs, labels), vars(loss)["calls"])

    return plain(mlp(), loss=loss)


@dataclass(slots=True)
class Slotted:
    calls: int = 0


def inside_a_partial(seed: int) -> Parts:
    def loss(held: Slotted, outputs: Tensor, labels: Tensor) -> Tensor:
        held.calls += 1
        return scaled(nn.functional.cross_entropy(outputs, labels), held.calls)

    return plain(mlp(), loss=partial(loss, Slotted()))


def inside_a_hook(seed: int) -> Parts:
    model, held = mlp(norm=False), [0.0]

    def hook(module: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
        held[0] += 0.3
        return outputs * (1 + 0.1 * np.sin(held[0]))

    model[0].register_forward_hook(hook)
    return plain(model)


class NoisyData:
    """A dataset that adds noise from a generator of its own."""

    def __init__(self, generator: torch.Generator | np.random.Generator | random.Random) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, labels = examples()
        match self.generator:
            case torch.Generator():
                noise = torch.rand((), generator=self.generator).item()
            case _:
                noise = self.generator.random()
        return inputs[index] + noise, labels[index]


def private_generator(seed: int, kind: str = "torch", hidden: bool = True) -> Parts:
    generators: dict[str, Any] = {
        "torch": torch.Generator().manual_seed(seed),
        "numpy": np.random.default_rng(seed),
        "python": random.Random(seed),
    }
    data = NoisyData(generators[kind])
    return plain(mlp(), data=data, others={} if hidden else {"data": Memory(data.generator)})


def unfreezing(seed: int, at: int = 3) -> Parts:
    """The last layer is set free at a step, and stays free: that too crosses the boundary."""
    model = mlp(norm=False)
    model[-1].requires_grad_(False)

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        if parts.cursor.position == at + 1:
            model[-1].requires_grad_(True)
        return supervised(parts, batch)

    return plain(model, train_step=step)


def mode_is_left_behind(seed: int) -> Parts:
    """From the third step on the model stays in evaluation mode."""

    def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = supervised(parts, batch)
        if parts.cursor.position == 3:
            parts.model.eval()
        return loss

    return plain(mlp(), train_step=step)


class OnlyInEvaluation(nn.Module):
    """Keeps an average that training never reads: losses and weights stay equal without it."""

    def __init__(self, in_the_open: bool) -> None:
        super().__init__()
        self.body = mlp(norm=False, dropout=0.0)
        if in_the_open:
            self.register_buffer("average", torch.zeros(3))
        else:
            self.average = torch.zeros(3)
        self.average: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.body(inputs)
        if not self.training:
            return outputs - self.average
        with torch.no_grad():
            self.average = 0.9 * self.average + 0.1 * outputs.mean(0)
        return outputs


def only_in_evaluation(seed: int, hidden: bool = True) -> Parts:
    return plain(OnlyInEvaluation(in_the_open=not hidden))


HIDDEN = [
    (Recipe.of(attribute, keeps="counter"), "model.count"),
    (Recipe.of(attribute, keeps="private"), "model._private"),
    (Recipe.of(attribute, keeps="deque"), "model.queue["),
    (Recipe.of(attribute, keeps="tensor"), "model.stored"),
    (Recipe.of(closure_list), "train_step closing over seen["),
    (Recipe.of(module_global), "loss using CALLS['count']"),
    (Recipe.of(through_a_helper), "loss using bump using CALLS['count']"),
    (Recipe.of(class_attribute), "loss.calls of class Shared"),
    (Recipe.of(default_argument), "loss default memo[0]"),
    (Recipe.of(function_attribute), "loss.calls"),
    (Recipe.of(inside_a_partial), "loss.args[0].calls"),
    (Recipe.of(inside_a_hook), "model.0._forward_hooks[0] closing over held[0]"),
    (Recipe.of(private_generator, kind="torch"), "data.generator"),
    (Recipe.of(private_generator, kind="numpy"), "data.generator"),
    (Recipe.of(private_generator, kind="python"), "data.generator"),
    (Recipe.of(unfreezing), "model.3.weight.requires_grad"),
    (Recipe.of(mode_is_left_behind), "model.training"),
    (Recipe.of(only_in_evaluation), "model.average"),
]

IN_THE_OPEN = [
    Recipe.of(attribute, keeps="nothing"),
    Recipe.of(attribute, keeps="buffer"),
    Recipe.of(closure_list, hidden=False),
    Recipe.of(module_global, hidden=False),
    Recipe.of(through_a_helper, hidden=False),
    Recipe.of(private_generator, kind="torch", hidden=False),
    Recipe.of(private_generator, kind="numpy", hidden=False),
    Recipe.of(private_generator, kind="python", hidden=False),
    Recipe.of(unfreezing, at=UNTIL + 1),
    Recipe.of(only_in_evaluation, hidden=False),
]


@pytest.mark.parametrize(("recipe", "place"), HIDDEN, ids=[str(recipe) for recipe, _ in HIDDEN])
def test_hidden_memory_is_caught_and_named(recipe: Recipe, place: str):
    with pytest.raises(ForkError) as caught:
        check_fork(recipe, at=AT, until=UNTIL)
    sentence = str(caught.value)
    assert "is captured by no source: " in sentence
    listed = sentence.partition("is captured by no source: ")[2]
    assert place in listed
    assert str(recipe) in sentence


@pytest.mark.parametrize("recipe", IN_THE_OPEN, ids=str)
def test_the_same_in_the_open_passes(recipe: Recipe):
    assert "weights" in check_fork(recipe, at=AT, until=UNTIL).needed


def test_the_refusal_says_where_and_when_the_two_part():
    """The buffer's effect shows in the weights one step after the fork, in the first of its leaves."""
    with pytest.raises(
        ForkError, match=r"at step 4 differs first in weights/body\.0\.bias at step 5\."
    ):
        check_fork(Recipe.of(attribute, keeps="counter"), at=[4], until=UNTIL)


def test_memory_that_shows_only_in_the_outputs_is_said_to_show_there():
    with pytest.raises(ForkError, match="outputs on the probe set differ at step 7"):
        check_fork(Recipe.of(only_in_evaluation), at=[4], until=UNTIL)


def unrepeatable(seed: int) -> Parts:
    """Draws from the operating system at every step."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels) * (1 + random.SystemRandom().random())

    return plain(mlp(), loss=loss)


def test_a_step_that_is_not_deterministic_is_caught():
    with pytest.raises(ForkError, match="the step itself is not deterministic"):
        check_fork(Recipe.of(unrepeatable), at=[2], until=5)


@pytest.mark.parametrize("recipe", list(every_recipe().values()), ids=list(every_recipe()))
def test_nothing_is_suspected_where_nothing_is_hidden(recipe: Recipe):
    """Every path reachable from the parts agrees at a fork, torch's own bookkeeping included."""
    run, twin = Run(recipe, 0), Run(recipe, 9)
    run.advance(5)
    twin.restore(run.snapshot())
    assert hash_reachable(run.parts) == hash_reachable(twin.parts)


def test_a_fork_inside_an_epoch_at_its_edge_and_at_the_beginning():
    certificate = check_fork(trained, at=[0, 3, 4, 6], until=8)
    assert certificate.boundaries == (0, 3, 4, 6)
    assert certificate.needed == ("weights", "moments", "batchnorm", "order", "streams")
    assert (certificate.inert, certificate.constant) == ((), ("scheduler", "gradients"))
    assert str(certificate) == (
        "forks at steps 0, 3, 4, 6 are bit-equal to the original at step 8; needed for that: weights, "
        "moments, batchnorm, order, streams; constant in this run: scheduler, gradients"
    )


def test_pending_gradients_matter_inside_an_accumulation_window_and_not_at_its_end():
    inside = check_fork(Recipe.of(accumulating, every=3), at=[4], until=9)
    at_its_end = check_fork(Recipe.of(accumulating, every=3), at=[3], until=9)
    assert "gradients" in inside.needed
    assert "gradients" in at_its_end.constant


def clearing_first(seed: int) -> Parts:
    """Old gradients lie across the boundary, are cleared before they are used, and a setting is read."""
    parts = trained(seed)
    setting = {"scale": 1.0}

    def step(parts: Parts, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        parts.model.zero_grad()
        loss = setting["scale"] * parts.loss(parts.model(batch[0]), batch[1])
        loss.backward()
        parts.optimizers[""].step()
        return loss

    parts.others, parts.train_step = {"setting": setting}, step
    return parts


def test_a_source_is_inert_if_its_omission_changes_nothing_and_constant_if_there_is_none():
    certificate = check_fork(clearing_first, at=[3], until=6)
    assert certificate.inert == ("gradients",)
    assert certificate.constant == ("scheduler", "setting")
    # What is constant may matter where it is changed, so nothing may be concluded about it.
    run, other = Run(clearing_first, 0), Run(clearing_first, 0)
    run.advance(6)
    other.advance(3)
    other.sources["setting"].restore({**other.sources["setting"].capture(), "scale": 0.1})
    other.advance(6)
    assert run.snapshot().digest() != other.snapshot().digest()
    assert not same_bits(run.observe(Values()), other.observe(Values()))


def test_a_check_leaves_the_global_generators_alone():
    def generators() -> str:
        numpys = dict(np.random.get_state(legacy=False))
        return digest([torch.get_rng_state(), numpys, random.getstate()])

    before = generators()
    check_fork(trained, at=[2], until=4)
    assert generators() == before
