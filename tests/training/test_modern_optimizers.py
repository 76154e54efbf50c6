"""Optimizers from outside torch: their counters in parameter groups, what they wrap, what they serve.

The counters of schedule-free and pytorch-optimizer lie in `param_groups`. They are state, like Adam's `step`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bygones.core.digest import digest, same_bits
from bygones.core.errors import RecipeError
from bygones.core.values import Window
from bygones.study.design import Arm, Study, design_findings
from bygones.training.fork_check import check_fork
from bygones.training.interventions import Reset
from bygones.training.orders import Reshuffle
from bygones.training.param_groups import setting_names
from bygones.training.probes import Features, Logits
from bygones.training.recipe import Parts, Recipe
from bygones.training.run import Run
from bygones.training.sources.moments import Moments
from bygones.training.treatment import Treatment

schedulefree = pytest.importorskip("schedulefree")
po = pytest.importorskip("pytorch_optimizer")

OPTIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "Muon": lambda m: torch.optim.Muon([p for p in m.parameters() if p.ndim == 2], lr=0.02),
    "AdamWScheduleFree": lambda m: schedulefree.AdamWScheduleFree(m.parameters(), lr=0.02),
    "SGDScheduleFree": lambda m: schedulefree.SGDScheduleFree(m.parameters(), lr=0.2),
    "RAdamScheduleFree": lambda m: schedulefree.RAdamScheduleFree(m.parameters(), lr=0.02),
    "Lion": lambda m: po.Lion(m.parameters(), lr=0.01),
    "SOAP": lambda m: po.SOAP(m.parameters(), lr=0.01, precondition_frequency=2),
    "Shampoo": lambda m: po.Shampoo(m.parameters(), lr=0.01, momentum=0.9),
    "AdaBelief": lambda m: po.AdaBelief(m.parameters(), lr=0.01),
    "Prodigy": lambda m: po.Prodigy(m.parameters()),
    "Adan": lambda m: po.Adan(m.parameters(), lr=0.01),
    "SAM": lambda m: po.SAM(m.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9),
    "Lookahead": lambda m: po.Lookahead(torch.optim.Adam(m.parameters(), lr=0.02), k=3),
}
IN_GROUP = {
    "AdamWScheduleFree": {"k", "weight_sum", "lr_max", "scheduled_lr"},
    "SGDScheduleFree": {"k", "weight_sum", "lr_max", "scheduled_lr"},
    "RAdamScheduleFree": {"k", "weight_sum", "lr_max", "scheduled_lr"},
    "Prodigy": {"d", "d_max", "step", "d_numerator", "d_de_nom", "d_hat"},
    "Lookahead": {"counter"},
    "SAM": set(),
    "Muon": set(),
}
STEP = 7

with_every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))


def step(parts: Parts, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, labels = batch
    optimizer: Any = parts.optimizer
    if hasattr(optimizer, "train"):
        optimizer.train()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parts.loss(parts.model(inputs), labels)
        loss.backward()
        return loss

    loss = closure()
    optimizer.step(closure if isinstance(optimizer, po.SAM) else None)
    parts.model.zero_grad()
    return loss


def recipe(seed: int, optimizer: str = "Lion") -> Parts:
    inputs = np.random.default_rng(5).standard_normal((24, 4))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return Parts(
        model=model,
        optimizer=OPTIMIZERS[optimizer](model),
        data=(torch.tensor(inputs, dtype=torch.float32), torch.arange(24) % 3),
        order=Reshuffle(24, 6),
        train_step=step,
        probe_set=(torch.tensor(inputs[:8], dtype=torch.float32), torch.arange(8) % 3),
    )


def optimizer_of(run: Run) -> Any:
    return run.parts.optimizer


def first_layer(run: Run) -> nn.Linear:
    assert isinstance(run.parts.model, nn.Sequential)
    layer = run.parts.model[0]
    assert isinstance(layer, nn.Linear)
    return layer


def run_of(name: str, until: int = STEP, seed: int = 0) -> Run:
    run = Run(Recipe.of(recipe, optimizer=name), seed)
    run.advance(until)
    return run


@with_every_optimizer
def test_numbers_in_groups_that_change_are_moments_and_constants_are_settings(name: str):
    run = run_of(name)
    in_group = {
        leaf.rpartition("/")[2] for leaf in run.sources["moments"].capture() if "group0/" in leaf
    }
    assert in_group == IN_GROUP.get(name, {"step"})
    settings = run.sources["scheduler"].capture()
    assert not {leaf.rpartition("/")[2] for leaf in settings} & in_group
    assert any(leaf.endswith("/lr") for leaf in settings)
    earlier = run_of(name, until=2).sources["scheduler"].capture()
    assert {leaf: earlier[leaf] for leaf in settings} == settings


@with_every_optimizer
def test_a_fork_is_exact_and_nothing_is_missing(name: str):
    certificate = check_fork(Recipe.of(recipe, optimizer=name), at=[4], until=STEP)
    assert "bit-equal" in str(certificate)


@with_every_optimizer
def test_restore_is_exact_in_a_run_of_another_seed_that_is_further_or_new(name: str):
    for until in (0, STEP):
        snapshot = run_of(name, until).snapshot()
        for already in (0, STEP + 2):
            other = run_of(name, already, seed=3)
            other.restore(snapshot)
            assert other.snapshot().digest() == snapshot.digest()


@with_every_optimizer
def test_the_first_update_after_a_reset_is_that_of_a_new_optimizer(name: str):
    """A new optimizer for the trained weights, against the old one whose moments were reset."""
    run = run_of(name)
    weights = {k: v.clone() for k, v in run.parts.model.state_dict().items()}
    new = Run(Recipe.of(recipe, optimizer=name), seed=0)
    new.advance(0)
    new.parts.model.load_state_dict(weights)
    if name == "Lookahead":  # whose slow weights begin where the weights are
        new.parts.optimizer = OPTIMIZERS[name](new.parts.model)
    run.advance(STEP + 1, [Treatment("moments", Reset(), Window(STEP, STEP + 1))])
    batch = run.parts.fetch(np.arange(6))
    again = run_of(name)
    again.intervene([Treatment("moments", Reset(), Window(STEP, STEP + 1))])
    for parts in (new.parts, again.parts):
        step(parts, batch)
    assert all(
        same_bits(a, b)
        for a, b in zip(new.parts.model.parameters(), again.parts.model.parameters(), strict=True)
    )


def test_a_reset_that_kept_the_counter_would_be_seen():
    """The reset of only the per-parameter state, which is what it was while `k` counted as a setting."""
    run = run_of("AdamWScheduleFree")
    new, state = run.sources["moments"].fresh(), run.sources["moments"].capture()
    counters = {leaf: value for leaf, value in state.items() if leaf.startswith("group0/")}
    assert counters["group0/k"] == STEP
    assert new == {
        "group0/k": 0, "group0/weight_sum": 0.0, "group0/lr_max": -1.0, "group0/scheduled_lr": 0.0,
    }  # fmt: skip
    updates = []
    for reset in (new, counters):
        run = run_of("AdamWScheduleFree")
        run.sources["moments"].restore(reset)
        before = first_layer(run).weight.detach().clone()
        step(run.parts, run.parts.fetch(np.arange(6)))
        updates.append((first_layer(run).weight - before).norm().item())
    assert updates[0] != pytest.approx(updates[1], rel=0.05)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "ScheduleFree" in n])
def test_the_probe_reads_the_weights_that_are_served(name: str):
    run = run_of(name)
    before = run.snapshot().digest()
    assert run.parts.probe_set is not None
    inputs = run.parts.probe_set[0]
    observed = run.observe(Logits())
    features = run.observe(Features("0"))
    assert run.snapshot().digest() == before
    held = run.parts.model(inputs).detach().numpy()
    assert np.abs(observed - held).max() > 1e-4  # what training holds is another function
    optimizer_of(run).eval()
    np.testing.assert_array_equal(observed, run.parts.model(inputs).detach().numpy())
    np.testing.assert_array_equal(features, first_layer(run)(inputs).detach().numpy())
    np.testing.assert_array_equal(run.observe(Logits()), observed)  # and so once it is switched


@pytest.mark.parametrize(
    ("name", "leaves", "steps"),
    [
        ("Lion", "*/exp_avg", -1 / np.log(0.99)),  # Lion's average decays by its second beta
        ("AdaBelief", "*/exp_avg", -1 / np.log(0.9)),
        ("AdaBelief", "*/exp_avg_var", -1 / np.log(0.999)),
        ("AdaBelief", "*", -1 / np.log(0.999)),
        ("Lookahead", "*/slow_params", -3 / np.log(0.5)),
        ("Lookahead", "*/exp_avg", -1 / np.log(0.9)),
        ("AdamWScheduleFree", "*", np.inf),
        ("AdamWScheduleFree", "*/exp_avg_sq", -1 / np.log(0.999)),
        ("AdamWScheduleFree", "*/z", np.inf),
        ("AdamWScheduleFree", "group0/k", np.inf),
        ("Shampoo", "*", np.inf),
        ("Shampoo", "*/momentum_buffer", -1 / np.log(0.9)),
        ("Adan", "*/previous_grad", 1),
    ],
)
def test_lifetimes_are_of_the_leaves(name: str, leaves: str, steps: float):
    moments = run_of(name).sources["moments"]
    assert moments.lifetime_of(leaves).steps == pytest.approx(steps)
    if leaves == "*":  # of the whole source it is known before the first step
        assert run_of(name, until=0).sources["moments"].lifetime().steps == pytest.approx(steps)


@pytest.mark.parametrize(
    ("name", "leaves", "named"),
    [
        ("SOAP", "*/exp_avg*", "in the basis Q"),
        ("SOAP", "*/Q*", "in the basis Q"),
        ("SOAP", "*", ""),
        ("SOAP", "*/step", ""),
        ("Shampoo", "*/pre_cond*", "inv_pre_cond, which is computed from pre_cond"),
        ("Shampoo", "*pre_cond*", ""),
        ("Lion", "*/exp_avg", ""),
    ],
)
def test_a_part_of_what_means_something_only_together_is_named(name, leaves, named):
    at = Window(STEP, STEP + 1)
    arm = Arm("a part", Treatment("moments", Reset(), at, leaves=leaves))
    study = Study(Recipe.of(recipe, optimizer=name), [arm], STEP, (0, 1), seeds=(0, 1))
    notes = [one for one in design_findings(study, run_of(name)) if "compound" in one]
    assert len(notes) == bool(named)
    assert all(named in one and one.endswith("Arms: 'a part'.") for one in notes)


def test_state_that_is_no_tensor_is_refused_in_a_sentence():
    model = nn.Linear(4, 3)
    optimizer = po.ScalableShampoo(model.parameters(), lr=0.01)

    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    with pytest.raises(
        RecipeError, match=r"parameter0/pre_conditioner holds a PreConditioner, which"
    ):
        Moments({"": optimizer}, {}).capture()


def test_settings_are_what_constructors_take_and_callers_give():
    model = nn.Linear(4, 3)
    groups = [{"params": model.parameters(), "lr_scale": 0.5, "step": 0}]
    names = setting_names(torch.optim.AdamW(groups, lr=0.1))
    assert {"lr", "betas", "lr_scale", "initial_lr"} <= names
    assert "step" not in names

    class Loose(torch.optim.SGD):
        def __init__(self, params: Any, **settings: Any) -> None:
            super().__init__(params, **settings)

    assert {"lr", "momentum"} <= setting_names(Loose(nn.Linear(2, 2).parameters(), lr=0.1))


@with_every_optimizer
def test_an_optimizer_that_is_found_late_is_reset_to_a_new_one(name: str):
    """A script's optimizers may be found when they have been stepped, or loaded from a checkpoint."""
    late, new = (recipe(0, optimizer=name) for _ in range(2))
    for rows in (np.arange(6), np.arange(6, 12)):
        step(late, late.fetch(rows))
    new.model.load_state_dict(late.model.state_dict())
    new.optimizer = OPTIMIZERS[name](new.model)
    moments = Moments(dict(late.optimizers), {})
    moments.restore(moments.fresh())
    for _ in range(3):
        for parts in (late, new):
            step(parts, parts.fetch(np.arange(12, 18)))
    assert same_bits(*(nn.utils.parameters_to_vector(p.model.parameters()) for p in (late, new)))


def test_the_digest_of_the_run_contains_the_counters():
    """A run whose only difference is a counter is another run."""
    run = run_of("Lion")
    before = digest(run.snapshot().states)
    optimizer_of(run).param_groups[0]["step"] += 1
    assert digest(run.snapshot().states) != before
