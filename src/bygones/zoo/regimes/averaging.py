"""Weight averaging on handwritten digits: an EMA, the average of the last W iterates, and BatchNorm.

    EMA:     e <- d·e + (1 - d)·w
    window:  u = mean of the last W iterates, kept in a ring       SWA whose average forgets

Neither is fed back into training. Averaged weights have other activations than any iterate, so the
running statistics of BatchNorm have to be computed anew for them: `recompute_batchnorm`. What averaging does
to the variance is known exactly on an AR(1) chain: `bygones.zoo.worlds.averaged`.
Izmailov et al. 2018 (arXiv:1803.05407), algorithm 1; windows as in Kaddour 2022 (arXiv:2209.14981).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bygones.analysis.arms import Arms
from bygones.analysis.effects import estimator_of, per_seed
from bygones.analysis.signature import Signature
from bygones.core.study_facts import facts_of
from bygones.core.values import Lifetime, Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Hold, Replace, Reset
from bygones.training.orders import Reshuffle
from bygones.training.probes import AbstractProbe
from bygones.training.recipe import Batch, Memory, Parts, supervised
from bygones.training.treatment import Treatment
from bygones.zoo.digit_images import NUM_TRAIN, load_digit_images


def recipe(seed: int, lr: float = 0.1, decay: float = 0.95, window: int = 20) -> Parts:
    """Build an MLP 64-64-10 with BatchNorm, its EMA, and a ring of its last iterates; SGD with momentum 0.9.

    `lr`: learning rate, constant. `decay`: d of the EMA; 1 averages all iterates alike (SWA). `window`: W,
    iterates in the ring. Needs scikit-learn (the extra `regimes`).
    """
    inputs, labels = load_digit_images()
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    ema = get_ema_multi_avg_fn(decay) if decay < 1 else None
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        data=(inputs[:NUM_TRAIN], labels[:NUM_TRAIN]),
        order=Reshuffle(num_examples=NUM_TRAIN, batch_size=64),
        averages=AveragedModel(model, multi_avg_fn=ema),
        train_step=_train_and_keep,
        others={
            "iterates": Memory(
                {"ring": _flatten(model).repeat(window, 1), "count": 0},
                origin="averaging",
                lifetime=Lifetime("exact", window),
                fresh=lambda parts: {"ring": _flatten(parts.model).repeat(window, 1), "count": 0},
            ),
            "averaging": {"window": window},
        },
        probe_set=(inputs[NUM_TRAIN:], labels[NUM_TRAIN:]),
        probe_images=inputs[NUM_TRAIN:].reshape(-1, 8, 8),
    )


def _flatten(model: nn.Module) -> Tensor:
    """Copy the parameters into one row, float32 [P]."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def _train_and_keep(parts: Parts, batch: Batch) -> Tensor:
    """Take the default step, and put the new iterate into the ring; returns the loss."""
    loss = supervised(parts, batch)
    kept = parts.others["iterates"].value
    kept["ring"][kept["count"] % len(kept["ring"])] = _flatten(parts.model)
    kept["count"] += 1
    return loss


def recompute_batchnorm(model: nn.Module, inputs: Tensor, batch_size: int = 256) -> None:
    """Compute the running statistics of BatchNorm anew, in place: the mean over batches, weight 1/n each.

    The old statistics do not enter, so a second pass gives the same bits. `torch.optim.swa_utils.update_bn`
    does it; the batches are those of the stored order.
    """
    torch.optim.swa_utils.update_bn(inputs.split(batch_size), model)


def averaged_model(parts: Parts, of: Literal["model", "averages", "window"]) -> nn.Module:
    """Copy the model, with the last weights, the EMA or the mean of the window, and the last statistics."""
    served = copy.deepcopy(parts.model)
    if of == "averages":
        assert parts.averages is not None
        served.load_state_dict(parts.averages.module.state_dict())
    elif of == "window":
        kept, window = parts.others["iterates"].value, parts.others["averaging"]["window"]
        filled = kept["ring"][: max(1, min(kept["count"], len(kept["ring"])))]
        if window < len(filled):
            filled = kept["ring"][(kept["count"] - 1 - torch.arange(window)) % len(kept["ring"])]
        nn.utils.vector_to_parameters(filled.mean(dim=0), served.parameters())
    return served


@dataclass(frozen=True)
class AveragedLogits(AbstractProbe):
    """The logits of averaged weights, with BatchNorm's statistics computed anew for them: float32 [N, C].

    `of`: "averages" (EMA or SWA), "window" (mean of the last W iterates) or "model". `also`: further ones.
    `recompute=False` keeps the statistics of the run. Works on a copy.
    """

    of: Literal["model", "averages", "window"] = "averages"
    also: tuple[Literal["model", "averages", "window"], ...] = ()
    recompute: bool = True
    kind: ClassVar[Literal["logits", "values"]] = "logits"

    def others(self) -> dict[str, AbstractProbe]:
        return {name: AveragedLogits(name, recompute=self.recompute) for name in self.also}

    def __call__(self, parts: Parts) -> np.ndarray:
        assert parts.probe_set is not None
        model = averaged_model(parts, self.of)
        if self.recompute:
            recompute_batchnorm(model, parts.data[0])
        model.eval()
        with torch.no_grad():
            return model(parts.probe_set[0]).numpy().copy()


def study() -> Study:
    """Design a study of EMA, window and BatchNorm: six arms, 16 seeds; all three models are observed.

    Every arm acts once, at step 200, but for a held EMA (20 steps), and a window of the last 5 iterates
    instead of 20, from there to the end.
    """
    at = Window(200, 201)
    return Study(
        name="averaging",
        recipe=recipe,
        fork_at=200,
        horizons=(0, 1, 5, 10, 20, 21, 40, 80, 160),
        seeds=range(16),
        probe=AveragedLogits(also=("window", "model")),
        margins={"accuracy": 0.005},
        arms=(
            Arm("reset EMA", Treatment("averages", Reset(), at)),
            Arm("hold EMA for 20 steps", Treatment("averages", Hold(), Window(200, 220))),
            Arm("reset window", Treatment("iterates", Reset(), at)),
            Arm(
                "a window of 5",
                Treatment("averaging", Replace({"window": 5}), Window(200, 360)),
            ),
            Arm("reset batchnorm", Treatment("batchnorm", Reset(), at)),
            Arm("reset momentum", Treatment("moments", Reset(), at)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether an EMA forgets at its decay, and whether BatchNorm's old statistics leave no trace."""
    forgets = Signature(
        "a reset EMA is forgotten at its own rate",
        "the half-life of its effect is that of the decay 0.95, ln 2 / -ln 0.95 = 13.5 steps, to a tenth",
        "Tarvainen & Valpola 2017 (arXiv:1703.01780), section 2",
    )
    anew = Signature(
        "averaged weights need BatchNorm's statistics anew, and nothing of the old ones",
        "after the recomputation a reset of the running statistics moves no prediction, to the bit",
        "Izmailov et al. 2018 (arXiv:1803.05407), algorithm 1",
    )
    return (
        forgets.unless_followed(outcomes, 20, 80) or _judge_forgets(outcomes, forgets),
        _judge_anew(outcomes, anew),
    )


def _judge_forgets(outcomes: xr.Dataset, forgets: Signature) -> Signature:
    facts, expected = facts_of(outcomes), math.log(2) / -math.log(0.95)
    moved = per_seed(outcomes, "tv", "reset EMA")
    early, late = (moved.sel(step=facts.fork_at + horizon).values for horizon in (20, 80))
    found = estimator_of(facts)(60.0 / np.log2(early / late))
    ends = [found.low / expected, found.high / expected]
    within = None if min(ends) < 0.9 or max(ends) > 1.1 else True
    apart = min(ends) > 1.1 or max(ends) < 0.9
    return forgets.seen(f"{found} steps", False if apart else within)


def _judge_anew(outcomes: xr.Dataset, anew: Signature) -> Signature:
    arms = Arms.of(outcomes)
    outputs = outcomes["logits"].values
    moved = np.any(outputs[:, arms.index("reset batchnorm")] != outputs[:, arms.control])
    return anew.seen(f"{'some' if moved else 'none'} of {len(outputs)} seeds moved", not moved)
