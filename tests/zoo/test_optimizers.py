"""The first update after a full reset, by optimizer: longer, shorter, or turned alone."""

from __future__ import annotations

import sys

import pytest

from bygones.core.errors import MissingExtra, UnknownName
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.zoo.regimes import optimizers
from bygones.zoo.regimes.optimizers import OPTIMIZERS, build_optimizer, first_update


def test_what_a_reset_does_to_the_next_step_goes_by_how_its_length_is_set():
    """Exactly nothing without state; a short step of heavy ball, a long one of Adam, Lion's turned alone."""
    plain, heavy, adam, lion = (
        first_update(name, at=60) for name in ("SGD", "heavy ball", "Adam", "Lion")
    )
    assert (plain.size, plain.turn) == (1.0, 1.0)
    assert heavy.size < 0.7
    assert adam.size > 1.5
    assert 0.8 < lion.size < 1.01  # its signs are 0 where a batch gives no gradient at all
    assert lion.turn < 0.9


@pytest.mark.long
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_learns_and_is_reset(name: str):
    run = Run(Recipe.of(optimizers.recipe, optimizer=name), 0)
    run.advance(200)
    assert sum(run.losses[-20:]) < 0.7 * sum(run.losses[:20])
    found = first_update(name)
    if name == "SGD":
        assert (found.size, found.turn) == (1.0, 1.0)
    elif name == "ASGD":  # whose average is not fed back, and whose counter sets the step
        assert found.turn == pytest.approx(1.0)
    else:
        assert not found.turn > 0.99  # of SOAP's first step, which only measures, there is none


def test_another_name_and_a_missing_package_are_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
):
    with pytest.raises(UnknownName, match="optimizer called 'AdmaW'; did you mean 'AdamW'"):
        build_optimizer("AdmaW")

    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(
        MissingExtra, match=r"Lion needs pytorch_optimizer, .*bygones\[optimizers\]"
    ):
        build_optimizer("Lion")
