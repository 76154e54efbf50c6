"""Models that are alive beside the trained one: which tensors in variables are weights, and swapping them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bygones.attach.discovery import Place
from bygones.attach.observed_models import observe_models, weights_in_variables
from bygones.attach.probe_inputs import Inputs
from bygones.attach.sources.variables import ScriptVariables


def model_of() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def variable(root: str, held: Any, inner: str = "") -> ScriptVariables:
    """The source of what a variable holds: a dict or a list of tensors, at `inner` from the variable."""
    steps = held.items() if isinstance(held, dict) else enumerate(held)
    places = {
        f"{inner}[{key!r}]".lstrip("."): Place(
            f"{root}{inner}[{key!r}]", held, f"[{key!r}]", root, value
        )
        for key, value in steps
    }
    return ScriptVariables(root, places, {})


def live_with(model: nn.Module, *sources: ScriptVariables, **averaging: nn.Module) -> Any:
    return SimpleNamespace(
        trained={"model": model},
        averaging=averaging,
        sources={source.name: source for source in sources},
        parameters={},
        optimizers=[],
    )


def inputs_of(path: str = "model/") -> Inputs:
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    return Inputs(path, (((x,), {}),), None, "logits", "the test")


def weights(model: nn.Module, noise: float = 0.1) -> dict[str, Tensor]:
    return {n: p.detach() + noise * torch.randn_like(p) for n, p in model.named_parameters()}


def test_an_average_in_a_dict_is_swapped_in_and_the_weights_get_their_memory_back():
    model = model_of()
    shadow = weights(model)
    before = [(p.data_ptr(), p.detach().clone()) for p in model.parameters()]
    seen = observe_models(inputs_of(), live_with(model, variable("ema", shadow, ".shadow")))
    assert list(seen) == ["", "ema.shadow"]
    assert all(
        p.data_ptr() == at and torch.equal(p, value)
        for p, (at, value) in zip(model.parameters(), before, strict=True)
    )
    other = model_of()
    other.load_state_dict({**model.state_dict(), **shadow})
    wanted = observe_models(inputs_of(), live_with(other))[""]
    assert seen["ema.shadow"].tobytes() == wanted.tobytes()
    assert seen[""].tobytes() != wanted.tobytes()


def test_weights_under_a_key_are_named_as_the_script_writes_them():
    model = model_of()
    shadow = weights(model)
    held = {"saved": {"model": shadow, "epoch": 3}}
    saved = Place("saved", held, "saved", "saved", held["saved"])
    for source in (
        variable("saved", shadow, "['model']"),
        ScriptVariables("saved", {"value": saved}, {}),
    ):
        assert [*weights_in_variables(live_with(model, source), model)] == ["saved['model']"]


def test_a_list_in_the_order_of_the_parameters_is_one_too():
    model = model_of()
    shadow = weights(model)
    named = observe_models(inputs_of(), live_with(model, variable("ema", shadow)))
    listed = observe_models(inputs_of(), live_with(model, variable("ema", [*shadow.values()])))
    assert list(named) == list(listed) == ["", "ema"]
    assert named["ema"].tobytes() == listed["ema"].tobytes()


@pytest.mark.parametrize(
    "what", ["velocity", "squares", "some", "another shape", "another name", "no floats"]
)
def test_what_only_looks_like_weights_is_no_model(what: str):
    model = model_of()
    kept = weights(model)
    match what:
        case "velocity":
            kept = {n: torch.randn_like(p) for n, p in kept.items()}
        case "squares":
            kept = {n: p**2 for n, p in kept.items()}
        case "some":
            kept = dict([*kept.items()][1:])
        case "another shape":
            kept["0.weight"] = torch.ones(5, 3)
        case "another name":
            kept["first"] = kept.pop("0.weight")
        case _:
            kept = {n: torch.ones_like(p, dtype=torch.long) for n, p in kept.items()}
    assert weights_in_variables(live_with(model, variable("kept", kept)), model) == {}


def test_teachers_and_averages_are_called_in_place_of_the_trained_module():
    model, teacher = model_of(), model_of()
    with torch.no_grad():
        cast(nn.Linear, teacher[2]).bias.add_(1.0)
    seen = observe_models(inputs_of(), live_with(model, teacher=teacher))
    assert (seen["teacher"] - seen[""]).round(4).tolist() == [[1.0, 1.0, 1.0]] * 7

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = model, teacher.requires_grad_(False)
            self.unlike = nn.Linear(4, 3).requires_grad_(False)

    inside = observe_models(inputs_of("model/student"), live_with(Both()))
    assert list(inside) == ["", "model.teacher"]
    assert inside["model.teacher"].tobytes() == seen["teacher"].tobytes()


def test_a_model_that_is_wanted_and_not_there_has_no_outputs():
    seen = observe_models(inputs_of(), live_with(model_of()), ["ema.shadow"])
    assert list(seen) == ["", "ema.shadow"]
    assert torch.isnan(torch.from_numpy(seen["ema.shadow"])).all()
