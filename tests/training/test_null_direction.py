"""The direction of a matched null: as likely up as down, also where nothing can become negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from bygones.core.values import State, Window
from bygones.training.interventions import (
    AbstractIntervention,
    Boundary,
    MatchedNull,
    Reset,
    Scale,
)
from bygones.training.leaves import to_float64, unit_direction

NUM_DRAWS = 400


def leaf(kind: str, size: int = 80) -> np.ndarray:
    """Numbers as they lie in optimizers and BatchNorm."""
    rng = np.random.default_rng([size, len(kind)])
    return {
        "signed": lambda: rng.standard_normal(size),
        "second moments": lambda: np.exp(1.5 * rng.standard_normal(size)) * 1e-4,
        "variances": lambda: rng.uniform(0.3, 1.5, size),
        "half zeros": lambda: np.exp(rng.standard_normal(size)) * (rng.random(size) < 0.5),
        "one number": lambda: np.array([0.7]),
    }[kind]()


def at(seed: int, fresh: State | None = None) -> Boundary:
    return Boundary(
        step=1,
        window=Window(1, 2),
        source="moments",
        leaves="*",
        entry={},
        fresh=fresh,
        donor=None,
        rng=np.random.default_rng(seed),
    )


def displacements(values: np.ndarray, of: AbstractIntervention, fresh: State | None) -> np.ndarray:
    """Return what the null adds in each draw: [draws, size]."""
    found = []
    for seed in range(NUM_DRAWS):
        moved = MatchedNull(of)({"x": values}, at(seed, fresh))
        found.append(to_float64(moved["x"]) - values)
        assert np.all(values + found[-1] >= 0) or values.min() < 0
    return np.stack(found)


@pytest.mark.parametrize(
    "kind", ["signed", "second moments", "variances", "half zeros", "one number"]
)
@pytest.mark.parametrize("rule", [Scale(0.7), Scale(0.0), Reset()], ids=["less", "zero", "reset"])
def test_a_null_points_up_as_often_as_down(kind: str, rule: AbstractIntervention):
    """Mean cosine with "all up" within three of its sampling errors of 0; the norm is met in every draw."""
    values = leaf(kind)
    fresh: State = {"x": 0.4 * values[::-1].copy()} if kind != "one number" else {"x": values * 0.5}
    moved = displacements(values, rule, fresh)
    norm = np.linalg.norm(to_float64(rule({"x": values}, at(0, fresh))["x"]) - values)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), norm, rtol=1e-9)
    up = np.ones(len(values)) / np.sqrt(len(values))
    cosines = moved @ up / norm
    error = cosines.std(ddof=1) / np.sqrt(NUM_DRAWS)
    assert abs(cosines.mean()) < max(3 * error, 1e-12)  # balanced in every draw where it has to be
    if norm <= 0.5 * np.linalg.norm(values):
        assert np.abs(moved.mean(0) / np.maximum(np.abs(moved).max(0), 1e-300)).max() < 5 / np.sqrt(
            NUM_DRAWS
        )


@pytest.mark.parametrize("factor", [2.5, 10.0])
@pytest.mark.parametrize("kind", ["second moments", "variances"])
def test_a_treatment_larger_than_the_leaf_meets_the_norm_and_is_nearly_balanced(
    kind: str, factor: float
):
    """Most numbers shrink and a few grow, with nothing left over in the sum."""
    values = leaf(kind, 400)
    moved = displacements(values, Scale(factor), None)
    norm = (factor - 1) * np.linalg.norm(values)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), norm, rtol=1e-9)
    cosines = moved @ np.ones(len(values)) / np.sqrt(len(values)) / norm
    # Beyond the sum of all numbers, nothing balanced is as long.
    assert abs(cosines.mean()) < (1e-12 if norm < np.sum(values) / 2 else 0.05)
    assert np.abs(moved).min(0).max() > 0  # and every number moves


def test_a_reset_of_second_moments_is_not_matched_by_zeros():
    """A second moment of 0 divides the next update by next to nothing, and a random change should not."""
    values = leaf("variances", 400)
    moved = displacements(values, Scale(0.0), None)
    assert (values + moved > 0.2 * values).all()


@dataclass(frozen=True)
class RandomKick(AbstractIntervention):
    """A treatment that is nothing but a random displacement of a share of the leaf's norm."""

    share: float

    def __call__(self, state: State, at: Boundary) -> State:
        values = to_float64(state["x"])
        rng = np.random.default_rng([at.step, int(at.rng.integers(1 << 30))])
        if values.min() >= 0:
            return {"x": values * (1 + self.share * rng.choice((-1.0, 1.0), values.shape))}
        size = self.share * np.linalg.norm(values)
        return {"x": values + size * unit_direction(values.shape, rng)}


@pytest.mark.parametrize("kind", ["signed", "second moments", "variances"])
def test_a_random_kick_has_the_effect_of_its_null(kind: str):
    """Random kick minus its null, paired over 200 seeds, in a function that is far from linear: |t| < 2."""
    differences = []
    for seed in range(200):
        values = np.random.default_rng(seed).permutation(leaf(kind)) * (1 + 0.01 * seed)
        treated = to_float64(RandomKick(0.5)({"x": values}, at(seed))["x"])
        null = to_float64(MatchedNull(RandomKick(0.5))({"x": values}, at(seed))["x"])

        def response(x: np.ndarray, values: np.ndarray = values) -> float:
            scale = np.abs(values).mean()
            return float(np.mean(1 / np.sqrt(np.abs(x) / scale + 0.1)) + np.mean((x / scale) ** 3))

        differences.append(response(treated) - response(null))
    t = np.mean(differences) / (np.std(differences, ddof=1) / np.sqrt(len(differences)))
    assert abs(t) < 2
