"""Every quantity of dynamics gives the exact answer in a world where it is known."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bygones
from bygones.analysis.estimators import Estimate
from bygones.core.values import Window
from bygones.dynamics import (
    QUANTITIES,
    AbstractQuantity,
    Attribution,
    CarrierHalfLife,
    DoseResponse,
    Superposition,
)
from bygones.study.design import Arm
from bygones.training.interventions import Kick
from bygones.training.probes import Carrier
from bygones.training.treatment import Treatment

FORK_AT, SEEDS = 8, range(3)
DECAY = 0.8


def recipe(seed: int, momentum: float = 0.1) -> bygones.Parts:
    """A small network whose BatchNorm statistics and EMA never feed back into training."""
    inputs = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = (inputs[:, 0] > 0).long()
    norm = nn.BatchNorm1d(8, momentum=momentum)
    model = nn.Sequential(nn.Linear(4, 8), norm, nn.Tanh(), nn.Linear(8, 2)).double()
    return bygones.Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        averages=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY)),
        data=(inputs, labels),
        order=bygones.Reshuffle(num_examples=64, batch_size=16),
        probe_set=(inputs[:8], labels[:8]),
    )


class Case(NamedTuple):
    quantity: AbstractQuantity
    exact: float
    momentum: float = 0.1
    read: Callable[[Any], Estimate] = lambda found: found


def kicked(at: int) -> Arm:
    kick = Treatment("averages", Kick({"module.0.weight": 0.3}), Window(at, at + 1))
    return Arm(f"kicked at {at}", kick)


# A change of the statistics or of the EMA, which never feed back, is a linear memory of the EMA's outputs.
AVERAGED: dict[str, Any] = {
    "horizons": (3,),
    "probe": Carrier("averages", "*weight"),
    "leaves": "*weight",
}

CASES = {
    "attribution": [  # ⟨a, a + b⟩ of ⟨a + b, a + b⟩, with a = DECAY · b: kicked a step earlier
        Case(
            Attribution((kicked(8), kicked(9)), (4,), probe=AVERAGED["probe"]),
            DECAY / (1.0 + DECAY),
            read=lambda found: found.shapley[0][0].scaled(1.0 / found.total[0].value),
        )
    ],
    "dose-response": [
        Case(DoseResponse("averages", **AVERAGED), 1.0, read=lambda found: found.exponent[0]),
        Case(DoseResponse("averages", **AVERAGED), 0.0, read=lambda found: found.even_share[0]),
    ],
    "superposition": [
        Case(
            Superposition((kicked(8), kicked(9)), (4,), AVERAGED["probe"]),
            0.0,
            read=lambda found: found.sizes["kicked at 8", "kicked at 9"][0],
        )
    ],
    "carrier-half-life": [
        Case(CarrierHalfLife("batchnorm", "*running*"), 6.578813478960585),
        Case(CarrierHalfLife("batchnorm", "*running*"), 1.0, momentum=0.5),
        Case(CarrierHalfLife("averages", "*weight"), -math.log(2) / math.log(DECAY)),
    ],
}


def test_every_quantity_has_a_case() -> None:
    assert CASES.keys() == set(QUANTITIES)


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name in CASES for place in range(len(CASES[name]))]
)
def test_the_estimate_is_the_exact_answer(name: str, place: int) -> None:
    case = CASES[name][place]
    given = bygones.Recipe.of(recipe, momentum=case.momentum)
    study = case.quantity.design(given, FORK_AT, SEEDS)
    found = case.read(case.quantity.estimate(bygones.measure(study)))
    assert found.num_pairs == len(SEEDS)
    assert found.value == pytest.approx(case.exact, abs=1e-6)
    assert found.high - found.low < 1e-5


def test_a_treated_arm_that_equals_the_control_has_no_half_life() -> None:
    quantity = CarrierHalfLife("batchnorm", "*running*")
    outcomes = bygones.measure(quantity.design(bygones.Recipe.of(recipe), FORK_AT, SEEDS))
    outcomes["values"][:] = 0.0
    with pytest.raises(ValueError, match="positive distances"):
        quantity.estimate(outcomes)
