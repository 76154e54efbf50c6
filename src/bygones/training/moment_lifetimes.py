"""Lifetimes of optimizer state: how much of a difference each kind of leaf keeps per step."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

# Which setting of the group is the decay of a leaf: a name, or a name and a place in its tuple.
_DECAYS: dict[str, tuple[str, int | None]] = {
    "momentum_buffer": ("momentum", None),
    "exp_avg": ("betas", 0),
    "exp_avg_sq": ("betas", 1),
    "exp_avg_var": ("betas", 1),
    "exp_inf": ("betas", 1),
    "exp_avg_slow": ("betas", 2),
    "square_avg": ("alpha", None),
    "grad_avg": ("alpha", None),
    "acc_delta": ("rho", None),
}
# By class, where the same name is another thing: Lion's average decays by its second beta, Adadelta's
# squares by rho, Adan's by the third beta, and SOAP's matrices by their own.
_DECAYS_OF: dict[str, dict[str, tuple[str, int | None]]] = {
    "Lion": {"exp_avg": ("betas", 1)},
    "Adadelta": {"square_avg": ("rho", None)},
    "Adan": {"exp_avg_sq": ("betas", 2), "exp_avg_diff": ("betas", 1)},
    "SOAP": {"GG": ("betas", 1), "Q": ("betas", 1)},
}
# Gone with the next step.
_LAST_GRADIENTS = {"prev", "previous_grad"}
# Leaves that count steps: the time constant of a source is that of what it averages.
_COUNTERS = {"step", "k", "counter", "mu_product"}
# Optimizers that keep a sum, a maximum or an average since the beginning: by entry of a group, or by class.
_SUMS_IN_GROUP = {"weight_sum", "d_max"}
_SUMMING = {"Shampoo", "ScalableShampoo"}


def decay_of_leaf(key: str, group: dict[str, Any], optimizer: Optimizer) -> float:
    """Return the factor by which a difference in a leaf of this key shrinks in a step; 1 if it does not.

    `key` is the optimizer's own name: `exp_avg`. Lookahead's slow weights keep 1 − α of a difference every
    k steps, so (1 − α)^(1/k) a step. A key that is not known is taken for a sum that never decays.
    """
    if key in _LAST_GRADIENTS:
        return 0.0
    if key in ("slow_params", "slow_momentum"):
        alpha, every = getattr(optimizer, "alpha", 0.0), getattr(optimizer, "k", 1)
        return max(0.0, 1.0 - float(alpha)) ** (1.0 / float(every))
    name, place = {**_DECAYS, **_DECAYS_OF.get(type(optimizer).__name__, {})}.get(key, ("", None))
    if name not in group:
        return 1.0
    value = group[name]
    if isinstance(value, tuple | list):
        return float(value[place]) if place is not None and place < len(value) else 1.0
    return float(value)


def slowest_decay(group: dict[str, Any], optimizer: Optimizer) -> float:
    """Return the largest factor that a group's state keeps per step, read off class and settings.

    So it is the same before the first step, when there is no state. Counters are left out: they would make
    every lifetime unbounded.
    """
    kind = type(optimizer).__name__
    if group.get("amsgrad") or _SUMS_IN_GROUP & group.keys() or kind in _SUMMING:
        return 1.0
    if kind == "Lookahead":
        return decay_of_leaf("slow_params", group, optimizer)
    factors = [float(factor) for factor in group.get("betas", ())]
    factors += [float(group[key]) for key in ("momentum", "rho") if key in group]
    if "centered" in group:  # RMSprop's alpha is a decay; ASGD's is a power
        factors.append(float(group["alpha"]))
    return max(factors, default=1.0)


def is_counter(key: str) -> bool:
    """Return True for a leaf that counts steps, or a product of settings over them."""
    return key in _COUNTERS
