"""Variance components: worlds whose shares are known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bygones.core.errors import DesignError
from bygones.dynamics.variance_components import VarianceComponents, variance_components

ROLES = ("init", "order", "dropout")


def estimate(f: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> VarianceComponents:
    """Estimate from draws [2, n, 3] of the roles."""
    a, b = draws
    mixed = {}
    for place, role in enumerate(ROLES):
        one = a.copy()
        one[:, place] = b[:, place]
        mixed[role] = f(one)
    return variance_components(f(a), f(b), mixed)


def test_an_additive_world_in_function_space() -> None:
    """Outputs are vectors, w_i x_i along orthogonal axes: S_i = T_i = w_i² / Σ w²."""
    weights = np.array([1.0, 3.0, 0.0])
    found = estimate(lambda x: x * weights, np.random.default_rng(1).standard_normal((2, 4000, 3)))
    for role, exact in zip(ROLES, weights**2 / 10.0, strict=True):
        for one in (found.first[role], found.total[role]):
            assert one.covers(exact)
            assert one.high - one.low < 0.11
    assert found.total["dropout"].value == 0.0
    assert abs(found.variance - 10.0) < 0.5


def test_ishigami() -> None:
    """sin x₁ + 7 sin² x₂ + 0.1 x₃⁴ sin x₁, x in [−π, π]: x₃ acts through x₁ alone."""
    a, b = 7.0, 0.1
    first = 0.5 * (1.0 + b * np.pi**4 / 5.0) ** 2, a**2 / 8.0, 0.0
    joint = b**2 * np.pi**8 * (1.0 / 18.0 - 1.0 / 50.0)
    total = first[0] + joint, first[1], joint
    variance = sum(first) + joint
    draws = np.random.default_rng(2).uniform(-np.pi, np.pi, (2, 8000, 3))
    found = estimate(
        lambda x: np.sin(x[:, 0]) * (1 + b * x[:, 2] ** 4) + a * np.sin(x[:, 1]) ** 2, draws
    )
    for place, role in enumerate(ROLES):
        for one, exact in ((found.first[role], first[place]), (found.total[role], total[place])):
            assert one.value == pytest.approx(exact / variance, abs=0.04)
            assert one.high - one.low < 0.12


def test_a_share_below_zero_is_reported_as_it_is() -> None:
    """Few draws of a role that acts little: its first-order share, 1/101, comes with noise of both signs."""
    values = [
        estimate(
            lambda x: x @ np.array([1.0, 0.1, 0.0]),
            np.random.default_rng(seed).standard_normal((2, 8, 3)),
        ).first["order"]
        for seed in range(40)
    ]
    assert min(one.value for one in values) < 0.0 < max(one.value for one in values)
    assert sum(one.covers(1.0 / 101.0) for one in values) >= 32


def test_what_has_no_components_is_refused() -> None:
    with pytest.raises(DesignError, match="never differ"):
        estimate(lambda x: 0.0 * x, np.random.default_rng(0).standard_normal((2, 8, 3)))
    with pytest.raises(DesignError, match="one shape"):
        variance_components(np.ones(3), np.ones(4), {"init": np.ones(3)})
