"""Barrier: how high loss and error rise on the straight line between the weights of two arms.

For seed s, with θ_A and θ_B the weights of two arms at the study's last step, and L the mean loss or the
error over a set of examples:

    θ(α)    = (1 − α) θ_A + α θ_B                        the line, α in [0, 1]
    barrier = max over α of L(θ(α)) − (L(θ_A) + L(θ_B)) / 2

On a convex loss no point lies above the higher end, so that it is half the difference of the ends at most,
and 0 where these are equal; beyond that, a ridge lies between the two. BatchNorm's running statistics belong
to no point of the line, so they are computed anew at each, over the training data. Two references stand
beside a barrier: that of the arm's matched null, and the ceiling, between the controls of two seeds.

Frankle et al., Linear mode connectivity and the lottery ticket hypothesis (2020),
https://arxiv.org/abs/1912.05671; recomputed statistics: Jordan et al., REPAIR (2022),
https://arxiv.org/abs/2211.08403.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.core.catalogue import unknown_name
from bygones.core.errors import DesignError, StoreError
from bygones.core.text import format_count
from bygones.store import AbstractStore
from bygones.study.design import Study
from bygones.study.plan import Plan, plan
from bygones.study.snapshot_bytes import decode
from bygones.study.tree import stored_snapshot
from bygones.training.run import Run, Snapshot

NUM_POINTS = 11
_BATCH = 256
_Weights = Mapping[str, Tensor]
Evaluate = Callable[[nn.Module], tuple[float, float]]


@dataclass(frozen=True)
class Rise:
    """Heights of the loss and of the error, a share of wrong predictions, on lines of independent seeds."""

    loss: Estimate
    error: Estimate

    @classmethod
    def on(cls, lines: np.ndarray) -> Rise:
        """Estimate the heights of lines of loss and error, [R, points, 2]."""
        heights = np.array([height(line) for line in lines])
        return cls(by_skewness(heights[:, 0]), by_skewness(heights[:, 1]))

    def __str__(self) -> str:
        return f"{self.loss} in loss and {self.error.scaled(100.0)} percentage points in error"


@dataclass(frozen=True)
class Barrier:
    """Barriers between two arms over seeds, in mean loss and in error; `str` is the sentence.

    `null`: those between the matched null of `left` and `right`, None where `left` has none. `ceiling`:
    those between the controls of two seeds, in disjoint pairs of seeds; None below two seeds.
    `on_line`: mean loss and error of each seed at each point, [R, points, 2], the first point `left`.
    """

    left: str
    right: str
    step: int
    rise: Rise
    null: Rise | None
    ceiling: Rise | None
    on_line: np.ndarray

    def __str__(self) -> str:
        loss = self.rise.loss
        references = [
            f"{what} by {rise} ({format_count(rise.loss.num_pairs, kind)})"
            for what, rise, kind in (
                ("its matched null", self.null, "seed"),
                ("two seeds", self.ceiling, "pair"),
            )
            if rise is not None
        ]
        return (
            f"Between {self.left} and {self.right} at step {self.step} the line rises above the mean of its "
            f"ends by {self.rise}{''.join(f', {one}' for one in references)}; "
            f"{format_count(loss.num_pairs, 'seed')}, {self.on_line.shape[1]} points, {loss.method}."
        )


def height(on_line: np.ndarray) -> np.ndarray:
    """Return the maximum over the points less the mean of the two ends, [points, …] -> […].

    >>> float(height(np.array([1.0, 4.0, 2.0])))
    2.5
    """
    return on_line.max(axis=0) - 0.5 * (on_line[0] + on_line[-1])


def losses_on_line(
    model: nn.Module,
    left: _Weights,
    right: _Weights,
    evaluate: Evaluate,
    *,
    data: Tensor | None = None,
    num_points: int = NUM_POINTS,
) -> np.ndarray:
    """Evaluate a model at points from `left` to `right`, two states of its parameters: float64 [points, 2].

    `evaluate` returns two numbers, such as mean loss and error. Where `data` is given, BatchNorm's statistics
    are computed anew over it at each point, ends included. The model itself is left as it was.
    """
    if num_points < 2:
        raise DesignError(f"a line has two ends or more points; got {num_points}.")
    moving, found = copy.deepcopy(model), []
    parameters = dict(moving.named_parameters())
    with torch.no_grad():
        for alpha in np.linspace(0.0, 1.0, num_points):
            for name, parameter in parameters.items():
                ends = left[name].double(), right[name].double()
                parameter.copy_((1.0 - alpha) * ends[0] + alpha * ends[1])
            if data is not None:
                recompute_batchnorm(moving, data)
            moving.eval()
            found.append(evaluate(moving))
    return np.array(found, dtype=np.float64)


def recompute_batchnorm(model: nn.Module, data: Tensor) -> None:
    """Set the running statistics of every BatchNorm to their averages over these inputs."""
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, kinds)]
    if not norms:
        return
    model.eval()
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in data.split(_BATCH):
        model(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def barrier(
    study: Study,
    store: AbstractStore,
    left: str,
    right: str = "control",
    *,
    on: str = "probe",
    num_points: int = NUM_POINTS,
) -> Barrier:
    """Estimate the barriers between two arms of a stored study of a classifier, at its last step.

    Cross-entropy and error are those on the examples of the probe set (`on="probe"`) or of the training data
    ("train"). The interval over seeds is chosen by `by_skewness`. Raises StoreError where an arm's last
    state is not stored, DesignError for other data than tensors of inputs and labels.
    """
    if on not in ("probe", "train"):
        raise DesignError(
            f"a barrier is seen on the 'probe' set or on the 'train' data; got '{on}'."
        )
    planned = plan(study, store)
    null = _null_of(planned, left)
    controls: list[_Weights] = []
    lines: list[np.ndarray] = []
    of_nulls: list[np.ndarray] = []
    between_seeds: list[np.ndarray] = []
    with planned.contract.in_force():
        for seed in study.seeds:
            run = Run(study.recipe, seed, planned.contract.device)
            draw = _lines_of(run, on, num_points)
            end = _weights(run, planned, seed, right)
            lines.append(draw(_weights(run, planned, seed, left), end))
            if null is not None:
                of_nulls.append(draw(_weights(run, planned, seed, null), end))
            controls.append(_weights(run, planned, seed, "control"))
            if len(controls) % 2 == 0:
                between_seeds.append(draw(*controls[-2:]))
    on_line = np.stack(lines)
    return Barrier(
        left,
        right,
        study.end,
        Rise.on(on_line),
        Rise.on(np.stack(of_nulls)) if of_nulls else None,
        Rise.on(np.stack(between_seeds)) if between_seeds else None,
        on_line,
    )


def _null_of(planned: Plan, arm: str) -> str | None:
    """Return the name of an arm's matched null; None without one, and for another draw of the arm itself."""
    facts = {one.name: one for one in planned.facts.arms}
    if arm not in facts:
        raise unknown_name("arm", arm, facts)
    if facts[arm].redraw:
        return None
    return next((one.name for one in facts.values() if one.null_of == arm), None)


def _lines_of(run: Run, on: str, num_points: int) -> Callable[[_Weights, _Weights], np.ndarray]:
    """Return the function that evaluates a run's model on the line between two weights, [points, 2]."""
    inputs, labels, data = _examples(run, on)

    def draw(left: _Weights, right: _Weights) -> np.ndarray:
        return losses_on_line(
            run.parts.model,
            left,
            right,
            lambda model: _loss_and_error(model, inputs, labels),
            data=data,
            num_points=num_points,
        )

    return draw


def _weights(run: Run, planned: Plan, seed: int, arm: str) -> _Weights:
    """Return the weights of an arm at its last step."""
    run.restore(_last_state(planned, seed, arm))
    return {name: p.detach().clone() for name, p in run.parts.model.named_parameters()}


def _last_state(planned: Plan, seed: int, arm: str) -> Snapshot:
    """Return the stored state of an arm at its last step."""
    names = [branch.arm.name for branch in planned.branches if branch.repeat == 0]
    if arm not in names:
        raise unknown_name("arm", arm, names)
    tree, steps = planned.tree, planned.study.steps
    history = tree.segments[tree.path(arm)[-1]].history
    address = planned.addresses.history(seed, history)
    stored = stored_snapshot(planned.store, address, steps[-1])
    if stored is None:
        raise StoreError(
            f"the last state of arm '{arm}' of seed {seed} is not in this store. Run the study into it "
            f"first, from the same code."
        )
    return decode(planned.store.get(stored), planned.contract.device)


def _examples(run: Run, on: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs and labels to be judged on, and the training inputs that statistics are computed over."""
    data, probe = run.parts.data, run.parts.probe_set
    chosen = probe if on == "probe" else data
    if not isinstance(data, tuple) or not isinstance(chosen, tuple) or len(chosen) != 2:
        raise DesignError(
            f"a barrier needs tensors of inputs and labels; the {on} data of {run.recipe} are something "
            f"else. Use `losses_on_line` with a function that evaluates the model."
        )
    device = run.parts.device
    inputs, labels = (tensor.to(device) for tensor in chosen)
    return inputs, labels, data[0].to(device)


def _loss_and_error(model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy and the share of wrong predictions, in evaluation mode."""
    logits = torch.cat([model(batch) for batch in inputs.split(_BATCH)]).double()
    wrong = (logits.argmax(dim=-1) != labels).double().mean()
    return float(nn.functional.cross_entropy(logits, labels)), float(wrong)
