"""Every probe leaves no trace, and one that does is refused with the place."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from tests.helpers.specimen_recipes import assorted, buffered, contrastive, trained
from torch import nn

from bygones.core.digest import digest
from bygones.core.errors import BygonesError, ProbeError, RecipeError
from bygones.training.probes import PROBES, AbstractProbe, Carrier, Features, Logits, Values
from bygones.training.recipe import Memory, Parts, Recipe
from bygones.training.run import Run

EXAMPLES: list[AbstractProbe] = [
    Logits(),
    Logits(of="averages"),
    Values(),
    Features(layer="1"),
    Carrier("weights"),
    Carrier("moments", leaves="*/exp_avg"),
    Carrier("batchnorm", leaves="*/running_var"),
    Carrier("averages"),
]
RICH = Recipe.of(trained, optimizer="adam", averages="ema-buffers", scheduler="cosine")
every_probe = pytest.mark.parametrize("probe", EXAMPLES, ids=str)


def stepped(recipe: Recipe, seed: int = 0, until: int = 4) -> Run:
    run = Run(recipe, seed)
    run.advance(until)
    return run


def flags(run: Run) -> list[bool]:
    modules = [run.parts.model, run.parts.averages, *run.parts.others.values()]
    roots = [m.value if isinstance(m, Memory) else m for m in modules]
    return [m.training for root in roots if isinstance(root, nn.Module) for m in root.modules()]


def global_generators() -> str:
    state = np.random.get_state(legacy=False)
    return digest([torch.get_rng_state(), dict(state), list(random.getstate()[1])])


def test_there_is_an_example_of_every_probe():
    assert {type(probe) for probe in EXAMPLES} == set(PROBES.values())


@every_probe
def test_a_probe_leaves_no_trace(probe: AbstractProbe):
    run = stepped(RICH)
    run.parts.model[1].eval()  # pyright: ignore[reportIndexIssue, reportCallIssue]
    before = run.snapshot().digest(), flags(run), global_generators()
    assert True in flags(run)
    assert False in flags(run)
    run.observe(probe, check=False)
    assert (run.snapshot().digest(), flags(run), global_generators()) == before


@every_probe
def test_a_run_that_is_watched_trains_as_one_that_is_not(probe: AbstractProbe):
    watched, alone = stepped(RICH, until=1), stepped(RICH, until=7)
    seen: list[np.ndarray] = []
    watched.advance(7, at_boundary=lambda run: seen.append(run.observe(probe)))
    assert len(seen) == 6
    assert watched.snapshot().digest() == alone.snapshot().digest()
    assert watched.losses == alone.losses


@every_probe
def test_what_is_observed_is_repeatable_and_a_copy(probe: AbstractProbe):
    run = stepped(RICH)
    seen = run.observe(probe)
    again = run.observe(probe)
    assert seen.tobytes() == again.tobytes()
    seen[...] = 0
    assert run.observe(probe).tobytes() == again.tobytes()
    assert again.ndim == 2
    twin = Run(RICH, 5)
    assert twin.observe(Values()).tobytes() != run.observe(Values()).tobytes()
    twin.restore(run.snapshot())
    assert twin.observe(probe).tobytes() == again.tobytes()


def test_logits_and_values_are_the_evaluated_model_on_the_probe_set():
    run = stepped(RICH)
    inputs, _ = run.parts.probe_set or (None, None)
    run.parts.model.eval()
    with torch.no_grad():
        expected = run.parts.model(inputs).numpy()
    run.parts.model.train()
    assert run.observe(Logits()).dtype == np.float32
    assert run.observe(Values()).dtype == np.float64
    np.testing.assert_array_equal(run.observe(Logits()), expected)
    np.testing.assert_array_equal(run.observe(Values()), expected.astype(np.float64))
    assert not np.array_equal(run.observe(Logits(of="averages")), expected)


def test_a_carrier_is_the_sources_numbers_in_the_order_of_their_names():
    run = stepped(RICH)
    state = run.sources["batchnorm"].capture()
    assert sorted(state) == ["1/num_batches_tracked", "1/running_mean", "1/running_var"]
    expected = np.concatenate([state["1/running_mean"].numpy(), state["1/running_var"].numpy()])
    np.testing.assert_array_equal(run.observe(Carrier("batchnorm"))[0], expected.astype(np.float64))


@pytest.mark.parametrize(("source", "until"), [("gradients", 4), ("order", 4)])
def test_a_carrier_without_numbers_says_so(source: str, until: int):
    with pytest.raises(BygonesError, match=f"'{source}' holds no arrays of floats"):
        stepped(RICH, until=until).observe(Carrier(source))


CREATE_ZEROS = (
    "heavy-ball", "nesterov", "dampened", "adam", "adamw-amsgrad", "adamax", "radam", "rmsprop",
    "rmsprop-centered", "adadelta",
)  # fmt: skip


@pytest.mark.parametrize("optimizer", CREATE_ZEROS)
def test_the_carrier_of_an_optimizer_that_was_reset_is_zeros_of_the_same_size(optimizer: str):
    run = stepped(Recipe.of(trained, optimizer=optimizer))
    before = run.observe(Carrier("moments"))
    assert np.abs(before).min(axis=1) < np.abs(before).max()
    run.sources["moments"].restore(run.sources["moments"].fresh())
    after = run.observe(Carrier("moments"))
    assert after.shape == before.shape
    assert not after.any()
    run.advance(5)
    again = run.observe(Carrier("moments"))
    assert again.shape == before.shape
    assert again.any()


def test_a_new_optimizer_without_memory_has_no_carrier_and_one_that_begins_otherwise_is_refused():
    with pytest.raises(RecipeError, match="'moments' holds no arrays of floats"):
        stepped(Recipe.of(trained, optimizer="sgd")).observe(Carrier("moments"))
    begins_at_lr = stepped(Recipe.of(trained, optimizer="rprop"), until=0)
    with pytest.raises(RecipeError, match="/step_size' is not there before the first step"):
        begins_at_lr.observe(Carrier("moments"))
    assert not begins_at_lr.observe(Carrier("moments", leaves="*/prev")).any()
    asks_for_a_closure = stepped(Recipe.of(trained, optimizer="lbfgs", norm=False, dropout=0.0))
    assert asks_for_a_closure.observe(Carrier("moments")).any()


@dataclass(frozen=True)
class Meddling(AbstractProbe):
    """Changes one thing while it looks."""

    what: str
    kind: ClassVar[Literal["logits", "values"]] = "values"

    def __call__(self, parts: Parts) -> np.ndarray:
        model = parts.model
        with torch.no_grad():
            match self.what:
                case "a weight, again and again":
                    model[0].weight += 1.0  # pyright: ignore
                case "a weight, once":
                    model[0].weight.zero_()  # pyright: ignore
                case "batchnorm":
                    model.train()
                    model(examples_of(parts))
                case "averages":
                    assert parts.averages is not None
                    parts.averages.update_parameters(model)
                case "moments":
                    parts.optimizers[""].state.clear()
                case "the learning rate":
                    parts.optimizers[""].param_groups[0]["lr"] = 7.0
                case "gradients":
                    with torch.enable_grad():
                        model(examples_of(parts)).sum().backward()
                case "order":
                    parts.cursor.next()
                case "streams":
                    parts.keys["dropout"] = 1
                case "a buffer":
                    model.hidden.fill_(3.0)  # pyright: ignore
                case "a queue":
                    parts.others["queue"].value.zero_()
                case "a generator":
                    torch.rand((), generator=parts.others["torch-rng"])
        return np.zeros((1, 1))


def examples_of(parts: Parts) -> torch.Tensor:
    assert parts.probe_set is not None
    return parts.probe_set[0]


MEDDLERS = [
    ("a weight, again and again", RICH, "weights/0.weight"),
    ("a weight, once", RICH, "weights/0.weight"),
    ("batchnorm", RICH, "batchnorm/1/num_batches_tracked"),
    ("averages", RICH, "averages/module.0.bias"),
    ("moments", RICH, "moments/0.bias/exp_avg"),
    ("the learning rate", RICH, r"scheduler/optimizer/\[0/lr"),
    ("gradients", RICH, "gradients/0.bias/grad"),
    ("order", RICH, "order/position"),
    ("streams", RICH, "streams/dropout"),
    ("a buffer", Recipe.of(buffered), "buffers/hidden"),
    ("a queue", Recipe.of(contrastive), "queue/value"),
    ("a generator", Recipe.of(assorted), "torch-rng/torch"),
]


@pytest.mark.parametrize(("what", "recipe", "place"), MEDDLERS, ids=[m[0] for m in MEDDLERS])
def test_a_probe_that_changes_the_run_is_refused_with_the_place(
    what: str, recipe: Recipe, place: str
):
    run = stepped(recipe)
    sentence = rf"changed the run it observed at step 4 \(first in {place}\)\."
    with pytest.raises(ProbeError, match=sentence):
        run.observe(Meddling(what))
    run.observe(Meddling("nothing"))


@dataclass(frozen=True)
class Careless(AbstractProbe):
    """Draws from the global generators, changes modes, and gives what it is told to."""

    gives: str = "zeros"
    kind: ClassVar[Literal["logits", "values"]] = "values"

    def __call__(self, parts: Parts) -> np.ndarray:
        torch.rand(3)
        np.random.rand()
        random.random()
        for module in parts.model.modules():
            module.training = not module.training
        for entry in parts.others.values():
            if isinstance(entry, Memory) and isinstance(entry.value, nn.Module):
                entry.value.eval()
        if self.gives == "an error":
            raise ValueError("no luck")
        return np.zeros(3) if self.gives == "a vector" else np.zeros((1, 1))


@pytest.mark.parametrize("gives", ["zeros", "an error", "a vector"])
def test_modes_and_generators_are_given_back_whatever_happens(gives: str):
    run = stepped(Recipe.of(contrastive))
    before = flags(run), global_generators()
    if gives == "zeros":
        run.observe(Careless(gives))
    else:
        with pytest.raises(ProbeError, match=r"no luck|two dimensions .* it gave \[3\]"):
            run.observe(Careless(gives))
    assert (flags(run), global_generators()) == before


class WithAValueHead(nn.Module):
    """A model that has something called `value`, as actor-critic models do."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)
        self.value = nn.Linear(3, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.value(self.drop(self.trunk(inputs)))


def actor_critic(seed: int) -> Parts:
    parts = trained(seed)
    parts.model = WithAValueHead()
    parts.optimizer = torch.optim.Adam(parts.model.parameters(), lr=0.01)
    return parts


def test_a_model_with_a_part_called_value_is_kept_safe_as_a_whole():
    run = stepped(Recipe.of(actor_critic))
    run.observe(Values())
    assert all(flags(run))
    assert "trunk.weight/exp_avg" in run.sources["moments"].capture()
    assert "value.weight/exp_avg" in run.sources["moments"].capture()


def without_a_probe_set(seed: int) -> Parts:
    parts = trained(seed)
    parts.probe_set = None
    return parts


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (Logits(), "the recipe gives no probe_set"),
        (Values(), "the recipe gives no probe_set"),
    ],
)
def test_a_missing_probe_set_is_said(probe: AbstractProbe, sentence: str):
    with pytest.raises(RecipeError, match=sentence):
        Run(without_a_probe_set, 0).observe(probe)


def test_missing_averages_are_said():
    with pytest.raises(RecipeError, match="observes 'averages', which this recipe does not have"):
        Run(trained, 0).observe(Logits(of="averages"))
