"""How good the control is: the mean over seeds, and a refusal where nothing can be said of it alone."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.control_scores import control_scores
from bygones.core.errors import DesignError


def test_it_is_the_mean_accuracy_of_the_control_over_seeds() -> None:
    outcomes = make_outcomes(num_seeds=5, num_inputs=20)
    scores = control_scores(outcomes)
    right = outcomes["logits"].sel(arm="control").argmax("class") == outcomes["labels"]
    np.testing.assert_allclose(
        [one.value for one in scores.values()], right.mean(["seed", "input"]).values
    )
    assert list(scores) == outcomes["step"].values.tolist()
    assert all(one.low <= one.value <= one.high for one in scores.values())


def test_an_interval_ends_where_accuracy_does() -> None:
    outcomes = make_outcomes(num_seeds=3, num_inputs=4)
    right = outcomes["logits"].copy(data=np.zeros(outcomes["logits"].shape))
    right[..., 0] = 1.0
    labels = outcomes["labels"].copy(data=np.array([0, 0, 0, 1]))
    right[0, :, :, 3, 1] = 2.0  # one seed is right on the last input too
    scores = control_scores(outcomes.assign(logits=right, labels=labels))
    assert all(one.high == 1.0 for one in scores.values())


def test_what_cannot_be_said_of_the_control_alone_is_refused() -> None:
    outcomes = make_outcomes(num_seeds=3, num_inputs=4)
    with pytest.raises(DesignError, match="expected a score"):
        control_scores(outcomes, "tv")
    with pytest.raises(DesignError, match="has labels"):
        control_scores(outcomes.drop_vars("labels"))
