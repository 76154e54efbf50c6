"""Every metric, same behaviours: the axioms of distances, and an independent second opinion.

Shapes: L leading, N inputs, C classes.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import spatial, stats
from scipy.special import log_softmax

from bygones.analysis.metrics import DISTANCES, METRICS, SCORES, Metric
from bygones.core.errors import UnknownName

L, N, C = 4, 48, 5

every_metric = pytest.mark.parametrize("metric", list(METRICS.values()), ids=list(METRICS))
every_distance = pytest.mark.parametrize("metric", list(DISTANCES.values()), ids=list(DISTANCES))
every_score = pytest.mark.parametrize("metric", list(SCORES.values()), ids=list(SCORES))


def food(metric: Metric, seed: int, shape=(L, N, C), size: float = 1.5) -> np.ndarray:
    """Arrays of the kind that the metric eats; `size` makes predictions sharp or flat."""
    logits = size * np.random.default_rng(seed).standard_normal(shape)
    match metric.input_kind:
        case "probabilities":
            return np.exp(log_softmax(logits, axis=-1))
        case "log_probabilities":
            return log_softmax(logits, axis=-1)
        case _:
            return logits


# What a metric needs besides, where it is not what most need.
POWER = {"js": 0.5, "cka": 0.5, "rsa": 0.5}  # the power of a divergence that is a metric
NO_TRIANGLE = {"kl"}
# A representation has no shape with one input. (Of predictions one at a time: a root of a mean over
# inputs is no metric for js.)
FEW = {"cka": 6, "procrustes": 3, "rsa": 4}
# Two functions that are certain, and of different classes: as far apart as predictions can be.
CERTAIN = np.eye(C)[np.arange(N) % C], np.eye(C)[(np.arange(N) + 1) % C]
FARTHEST = {
    # Inputs 1–2 and 3–4 are alike in one and opposite in the other.
    "cka": (np.c_[[1.0, 1.0, -1.0, -1.0]], np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])),
    "procrustes": (np.c_[[1.0, 1.0, -1.0, -1.0]], np.c_[[1.0, -1.0, 1.0, -1.0]]),
    "rsa": (np.c_[[0.0, 1.0, 3.0]], np.c_[[0.0, 3.0, 1.0]]),  # distances 1 3 2 and 3 1 2
}

LABELS = np.random.default_rng(99).integers(C, size=N)


def second(metric: Metric, seed: int) -> np.ndarray:
    """What goes into the second place: another array, or labels."""
    return food(metric, seed) if metric.kind == "distance" else LABELS


# ------------------------------------------------------------------ the axioms of a distance


@every_distance
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.5, 40.0, 2000.0])
def test_distance_to_itself_is_exactly_zero(metric, size):
    x = food(metric, 0, size=size)
    assert np.array_equal(metric(x, x.copy()), np.zeros(L))


@every_distance
def test_distance_to_another_is_positive(metric):
    assert np.all(metric(food(metric, 0), food(metric, 1)) > 0.0)


@every_distance
@pytest.mark.parametrize("size", [1e-9, 1.5, 40.0, 2000.0])
def test_distance_stays_within_its_bounds(metric, size):
    low, high = metric.bounds
    found = metric(food(metric, 0, size=size), food(metric, 1, size=size))
    assert np.all(np.isfinite(found))
    assert np.all(found >= low)
    assert np.all(found <= high * (1.0 + 1e-12))


@pytest.mark.parametrize("metric", [m for m in DISTANCES.values() if math.isfinite(m.bounds[1])])
def test_upper_bound_is_reached(metric):
    found = metric(*FARTHEST.get(metric.name, CERTAIN))
    assert found == pytest.approx(metric.bounds[1], rel=1e-12)


@every_distance
def test_symmetric_where_claimed_and_not_where_not(metric):
    x, y = food(metric, 0), food(metric, 1)
    same = np.allclose(metric(x, y), metric(y, x), rtol=1e-12, atol=0.0)
    assert same == metric.symmetric


@pytest.mark.parametrize("metric", [m for m in DISTANCES.values() if m.name not in NO_TRIANGLE])
def test_triangle_inequality(metric):
    power = POWER.get(metric.name, 1.0)
    shape = (400, FEW.get(metric.name, 1), C)
    x, y, z = (food(metric, seed, shape=shape) for seed in range(3))
    direct, round_about = metric(x, z) ** power, metric(x, y) ** power + metric(y, z) ** power
    assert np.all(direct <= round_about + 1e-12)


@every_distance
def test_names_of_classes_do_not_matter(metric):
    x, y = food(metric, 0), food(metric, 1)
    renamed = np.random.default_rng(2).permutation(C)
    assert np.allclose(metric(x[..., renamed], y[..., renamed]), metric(x, y), rtol=1e-12)


def test_logit_rms_ignores_what_the_softmax_ignores():
    x, y = food(DISTANCES["logit_rms"], 0), food(DISTANCES["logit_rms"], 1)
    shift = np.random.default_rng(2).standard_normal((L, N, 1))
    assert np.allclose(DISTANCES["logit_rms"](x + shift, y), DISTANCES["logit_rms"](x, y))
    assert not np.allclose(DISTANCES["rms"](x + shift, y), DISTANCES["rms"](x, y))


# ------------------------------------------------------------------ shapes, NaN, no surprises


@every_metric
def test_leading_dimensions_are_a_loop(metric):
    x, y = food(metric, 0, shape=(2, 3, N, C)), food(metric, 1, shape=(2, 3, N, C))
    found = metric(x, y if metric.kind == "distance" else LABELS)
    assert found.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = metric(x[i, j], y[i, j] if metric.kind == "distance" else LABELS)
        assert np.shape(alone) == ()
        assert found[i, j] == pytest.approx(float(alone), rel=1e-12, abs=1e-15)


@every_distance
def test_one_control_serves_many_arms(metric):
    arms, control = food(metric, 0), food(metric, 1, shape=(N, C))
    assert np.allclose(metric(arms, control), [metric(arm, control) for arm in arms], rtol=1e-12)


@every_metric
@pytest.mark.parametrize("where", [np.s_[1], np.s_[1, 3], np.s_[1, 3, 2]])
def test_nan_in_nan_out_and_nowhere_else(metric, where):
    x, y = food(metric, 0), second(metric, 1)
    whole = metric(x, y)
    x[where] = np.nan
    found = metric(x, y)
    assert np.array_equal(np.isnan(found), [False, True, False, False])
    assert np.array_equal(found[[0, 2, 3]], whole[[0, 2, 3]])
    if metric.kind == "distance":
        assert np.array_equal(np.isnan(metric(y, x)), [False, True, False, False])


@every_metric
def test_order_of_inputs_does_not_matter(metric):
    x, y = food(metric, 0), second(metric, 1)
    order = np.random.default_rng(2).permutation(N)
    shuffled = metric(x[:, order], y[:, order] if metric.kind == "distance" else y[order])
    assert np.allclose(shuffled, metric(x, y), rtol=1e-12)


@every_metric
def test_inputs_are_left_alone(metric):
    x, y = food(metric, 0), second(metric, 1)
    before = x.copy(), y.copy()
    metric(x, y)
    assert np.array_equal(x, before[0])
    assert np.array_equal(y, before[1])


@every_score
@pytest.mark.parametrize("size", [0.0, 1.5, 40.0, 2000.0])
def test_score_stays_within_its_bounds(metric, size):
    found = metric(food(metric, 0, size=size), LABELS)
    assert np.all(found >= metric.bounds[0])
    assert np.all(found <= metric.bounds[1])


@every_score
def test_being_certain_and_right_is_the_best_score(metric):
    right = np.eye(C)[LABELS]
    with np.errstate(divide="ignore"):
        found = metric(np.log(right) if metric.input_kind == "log_probabilities" else right, LABELS)
    assert float(found) == (1.0 if metric.name == "accuracy" else 0.0)


# ------------------------------------------------------------------ a second opinion


def _each_input(one):
    """A reference for one input, averaged over the inputs in a plain loop."""
    return lambda x, y: np.mean([one(a, b) for a, b in zip(x, y, strict=True)])


def _bins_by_hand(p, labels, bins_of):
    confidence, right = p.max(-1), p.argmax(-1) == labels
    total = 0.0
    for members in bins_of(confidence):
        if len(members):
            gap = right[members].mean() - confidence[members].mean()
            total += len(members) / len(labels) * abs(gap)
    return total


def _equal_width(confidence):
    edges = np.linspace(0.0, 1.0, 16)
    return [np.flatnonzero((confidence > a) & (confidence <= b)) for a, b in pairwise(edges)]


def _equal_mass(confidence):
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    sizes = [sum(r * 15 // len(order) == b for r in range(len(order))) for b in range(15)]
    assert max(sizes) - min(sizes) <= 1
    return np.split(np.asarray(order), np.cumsum(sizes)[:-1])


def _centred_rms(z, w):
    difference = [(a - a.mean()) - (b - b.mean()) for a, b in zip(z, w, strict=True)]
    return math.sqrt(sum(float(d @ d) for d in difference) / (N * C))


def _debiased_cka(x, y):
    """HSIC_1 with every sum written out, on Gram matrices whose diagonal is left out."""

    def hsic(k, low):
        pairs = [(i, j) for i in range(N) for j in range(N) if i != j]
        both = sum(k[i, j] * low[i, j] for i, j in pairs)
        one, other = sum(k[i, j] for i, j in pairs), sum(low[i, j] for i, j in pairs)
        rows, columns = (
            [sum(m[i, j] for j in range(N) if j != i) for i in range(N)] for m in (k, low)
        )
        chained = sum(a * b for a, b in zip(rows, columns, strict=True))
        return both + one * other / ((N - 1) * (N - 2)) - 2.0 / (N - 2) * chained

    k, low = x @ x.T, y @ y.T
    return 1.0 - hsic(k, low) / math.sqrt(hsic(k, k) * hsic(low, low))


def _procrustes(x, y):
    """scipy's own also fits a scale: what it leaves is 1 − ‖x̂ᵀŷ‖∗²."""
    return math.sqrt(2.0 - 2.0 * math.sqrt(1.0 - spatial.procrustes(x, y)[2]))


def _rsa(x, y):
    return 1.0 - np.corrcoef(spatial.distance.pdist(x), spatial.distance.pdist(y))[0, 1]


SECOND_OPINION = {
    "cka": _debiased_cka,
    "procrustes": _procrustes,
    "rsa": _rsa,
    "tv": _each_input(lambda a, b: spatial.distance.cityblock(a, b) / 2),
    "js": _each_input(lambda a, b: spatial.distance.jensenshannon(a, b) ** 2),
    "hellinger": _each_input(lambda a, b: math.sqrt(1.0 - float(np.sqrt(a * b).sum()))),
    "kl": _each_input(lambda a, b: stats.entropy(np.exp(a), np.exp(b))),
    "disagreement": _each_input(lambda a, b: float(np.argmax(a) != np.argmax(b))),
    "logit_rms": _centred_rms,
    "rms": lambda x, y: spatial.distance.euclidean(x.ravel(), y.ravel()) / math.sqrt(x.size),
    "accuracy": lambda p, y: _sklearn().accuracy_score(y, p.argmax(-1)),
    "nll": lambda p, y: _sklearn().log_loss(y, np.exp(p), labels=range(C)),
    "brier": lambda p, y: C * _sklearn().mean_squared_error(np.eye(C)[y], p),
    "ece": lambda p, y: _bins_by_hand(p, y, _equal_width),
    "ece_mass": lambda p, y: _bins_by_hand(p, y, _equal_mass),
}


def _sklearn():
    return pytest.importorskip("sklearn.metrics")


@every_metric
@pytest.mark.parametrize("size", [0.3, 1.5, 4.0])
def test_agrees_with_an_independent_computation(metric, size):
    x = food(metric, 0, size=size)
    y = food(metric, 1, size=size) if metric.kind == "distance" else LABELS
    for place, found in enumerate(metric(x, y)):
        other = SECOND_OPINION[metric.name](x[place], y[place] if y.ndim > 1 else y)
        assert found == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_kl_stays_finite_where_a_probability_would_round_to_zero():
    z = np.array([[0.0, 2000.0]])
    p, q = log_softmax(z, axis=-1), log_softmax(-z, axis=-1)
    assert float(DISTANCES["kl"](p, q)) == 2000.0


# ------------------------------------------------------------------ the catalogues


@every_metric
def test_a_member_says_what_it_is(metric):
    assert METRICS[metric.name] is metric
    assert metric.unit
    assert metric.label
    assert metric.bounds[0] == 0.0
    assert "->" in metric.__doc__, "shapes"
    assert ">>>" in metric.__doc__, "an example that runs"
    assert METRICS.summary()[metric.name] == metric.function.__doc__.strip().split("\n")[0]


def test_catalogues_hold_their_kind_and_merge():
    assert all(metric.kind == "distance" for metric in DISTANCES.values())
    assert all(metric.kind == "score" for metric in SCORES.values())
    assert list(METRICS) == [*DISTANCES, *SCORES]
    assert set(SECOND_OPINION) == set(METRICS)


def test_a_near_miss_is_answered():
    with pytest.raises(UnknownName, match="no metric called 'helinger'; did you mean 'hellinger'"):
        METRICS["helinger"]
