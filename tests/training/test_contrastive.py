"""A contrastive run, with its own training step, a slow encoder and a queue, needs nothing from `Run`."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.specimen_recipes import BATCH_SIZE, QUEUE_SIZE, contrastive

from bygones.core.digest import digest, same_bits
from bygones.core.errors import ForkError
from bygones.core.values import Window
from bygones.training.fork_check import check_fork
from bygones.training.interventions import Hold, Kick, MatchedNull, Replace, Reset, Sham, Transplant
from bygones.training.probes import Carrier, Values
from bygones.training.recipe import Recipe
from bygones.training.rewriter import OtherRuns
from bygones.training.run import Run
from bygones.training.treatment import Treatment, check_pair

AT = 5  # the pointer is in the middle of the queue


def forked(treatments: list[Treatment], until: int = 12) -> tuple[Run, Run]:
    """A control, and a fork of it in a run of another seed under the treatments."""
    control, treated, donor = Run(contrastive, 0), Run(contrastive, 1), Run(contrastive, 8)
    control.advance(AT)
    donor.advance(AT)
    treated.restore(control.snapshot())
    given = donor.snapshot()
    control.advance(until)
    treated.advance(until, treatments, others=OtherRuns(donor=lambda step: given.states))
    return control, treated


def test_a_fork_needs_the_queue_the_pointer_and_the_slow_encoder():
    certificate = check_fork(contrastive, at=[1, 2, AT], until=9)
    assert {"weights", "moments", "key encoder", "queue", "pointer", "streams"} <= {
        *certificate.needed
    }


def test_an_unnamed_queue_is_refused_and_named():
    with pytest.raises(ForkError, match=r"captured by no source: train_step closing over keys\."):
        check_fork(Recipe.of(contrastive, named=False), at=[1, AT], until=9)


def test_a_sham_of_every_source_is_exactly_the_control():
    names = list(Run(contrastive, 0).sources)
    control, treated = forked([Treatment(name, Sham(), Window(AT, 11)) for name in names])
    assert treated.snapshot().digest() == control.snapshot().digest()


@pytest.mark.parametrize(
    "treatment",
    [
        Treatment("queue", Reset(), Window(AT, AT + 1)),
        Treatment("queue", Transplant(), Window(AT, AT + 1)),
        Treatment("queue", MatchedNull(of=Reset()), Window(AT, AT + 1)),
        Treatment("queue", Hold(), Window(AT, AT + 3)),
        Treatment("pointer", Replace({"at": 4}), Window(AT + 1, AT + 2)),
        Treatment("key encoder", Reset(), Window(AT, AT + 1)),
        Treatment("key encoder", Kick({"0.bias": np.ones(6)}), Window(AT, AT + 1)),
        Treatment("moments", Reset(), Window(AT, AT + 1)),
    ],
    ids=str,
)
def test_treatments_of_its_memories_change_what_is_trained(treatment: Treatment):
    check_pair(treatment, Run(contrastive, 0).sources[treatment.source])
    control, treated = forked([treatment])
    assert treated.snapshot().digest() != control.snapshot().digest()
    assert not np.array_equal(treated.observe(Values()), control.observe(Values()))
    assert np.isfinite(treated.losses).all()


def test_the_queue_forgets_after_exactly_its_length_over_the_batch():
    """Two batches fill it: with weights that do not move, a reset is gone after two steps, not one."""
    control, treated = Run(contrastive, 0), Run(contrastive, 0)
    for run in (control, treated):
        run.parts.optimizers[""].param_groups[0]["lr"] = 0.0
        run.advance(AT)
    treated.intervene([Treatment("queue", Reset(), Window(AT, AT + 1))])
    probe, gaps = Carrier("queue"), []
    for step in range(AT, AT + 4):
        gaps.append(float(np.abs(treated.observe(probe) - control.observe(probe)).max()))
        for run in (control, treated):
            run.advance(step + 1)
    lifetime = treated.sources["queue"].lifetime()
    assert [gap > 0 for gap in gaps] == [True, True, False, False]
    assert (lifetime.kind, lifetime.steps) == ("exact", QUEUE_SIZE / BATCH_SIZE) == ("exact", 2)


def test_the_slow_encoder_follows_by_its_momentum():
    """A displacement of the key encoder shrinks by the momentum a step where nothing else moves."""
    control, treated = Run(contrastive, 0), Run(contrastive, 0)
    for run in (control, treated):
        run.parts.optimizers[""].param_groups[0]["lr"] = 0.0
        run.advance(AT)
    treated.intervene([Treatment("key encoder", Kick({"0.bias": np.ones(6)}), Window(AT, AT + 1))])
    probe = Carrier("key encoder", leaves="0.bias")
    for step in range(AT, AT + 6):
        gap = treated.observe(probe) - control.observe(probe)
        np.testing.assert_allclose(gap, 0.8 ** (step - AT), rtol=1e-5)
        for run in (control, treated):
            run.advance(step + 1)


def test_new_means_what_the_memory_says_or_what_the_recipe_built():
    run = Run(contrastive, 0)
    run.advance(AT)
    built = Run(contrastive, 0)
    for name in ("queue", "pointer", "key encoder"):
        assert not same_bits(
            digest(run.sources[name].capture()), digest(built.sources[name].capture())
        )
        run.sources[name].restore(run.sources[name].fresh())
        assert digest(run.sources[name].capture()) == digest(built.sources[name].capture())
