"""Siblings and several forks: each repeat is a study of its own, and shares what it can with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import xarray as xr
from tests.helpers.study_recipes import at, classifier, one

from bygones.analysis.effects import all_effects, effect, per_seed
from bygones.analysis.function_field import function_field
from bygones.analysis.repeats import repeats
from bygones.core.errors import DesignError
from bygones.core.study_facts import RepeatFacts, facts_of
from bygones.core.values import Digest, Window
from bygones.store import MemoryStore
from bygones.store.outcomes import read_manifest
from bygones.study.design import Arm, Study
from bygones.study.design_json import design_to_json, study_from_json
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.study.repeats import make_branches
from bygones.training.fork_check import Certificate, check_fork
from bygones.training.interventions import Hold, Reseed, Reset
from bygones.training.probes import Carrier
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.sources import AbstractSource
from bygones.training.treatment import Treatment

FORKS = (4, 9)


@pytest.fixture(autouse=True)
def proven_once(monkeypatch: pytest.MonkeyPatch):
    """The fork check of a recipe is asked for by each new store; once will do for all tests."""
    monkeypatch.setattr("bygones.study.certificate.check_fork", _proof)


@cache
def _prove(recipe: Recipe, seed: int) -> Certificate:
    return check_fork(recipe, at=[1, 4], until=8, seed=seed)


def _proof(recipe: Recipe, seed: int, **rest: object) -> Certificate:
    return _prove(recipe, seed)


def design(fork_at: int | tuple[int, ...] = 4, siblings: int = 1, name: str = "") -> Study:
    first = fork_at if isinstance(fork_at, int) else fork_at[0]
    arms = (
        one("reset", Reset(), at(first)),
        one("hold", Hold(), Window(first, first + 3)),
        Arm("redraw", Treatment("streams", Reseed(), at(first))),
    )
    return Study(
        classifier,
        arms,
        fork_at=fork_at,
        horizons=(0, 1, 7),
        seeds=range(3),
        siblings=siblings,
        name=name or f"{fork_at} {siblings}",
    )


STORE = MemoryStore()


@cache
def measured(fork_at: int | tuple[int, ...] = 4, siblings: int = 1) -> xr.Dataset:
    if siblings > 1:
        measured(fork_at)
    return measure(design(fork_at, siblings), STORE)


def outputs(outcomes: xr.Dataset, arm: str) -> np.ndarray:
    return outcomes["logits"].sel(arm=arm).values


# ------------------------------------------------------------------ forks


def test_each_fork_is_the_study_that_is_forked_there():
    whole = repeats(measured(FORKS))
    for fork, found in zip(FORKS, whole, strict=True):
        alone = measured(fork)
        assert found["step"].values.tolist() == alone["step"].values.tolist()
        assert found["logits"].values.tobytes() == alone["logits"].values.tobytes()
        windows = [t.window for arm in facts_of(found).arms for t in arm.treatments]
        assert windows == [t.window for arm in facts_of(alone).arms for t in arm.treatments]
        assert facts_of(found).fork_at == fork


def test_a_seeds_trajectory_is_trained_once_for_all_forks():
    study, alone = design(FORKS), [plan(design(fork)).steps_shared for fork in FORKS]
    trajectory = 3 * (FORKS[1] + 7)
    # Of each study alone: the control up to its fork and from there on; then what is not the control's.
    others = sum(alone) - 3 * sum(fork + 7 for fork in FORKS)
    assert plan(study).steps_shared == trajectory + others


def test_the_estimand_is_the_mean_over_fork_times_and_is_called_that():
    found = effect(measured(FORKS), "reset", 11)
    each = [
        effect(one, "reset", fork + 7)
        for fork, one in zip(FORKS, repeats(measured(FORKS)), strict=True)
    ]
    assert found.estimate.value == pytest.approx(
        np.mean([e.estimate.value for e in each]), rel=1e-12
    )
    assert [(fork, e.value) for fork, e in found.by_fork] == [
        (fork, e.estimate.value) for fork, e in zip(FORKS, each, strict=True)
    ]
    assert found.ceiling is not None
    ceilings = [e.ceiling.value for e in each if e.ceiling is not None]
    assert found.ceiling.value == pytest.approx(np.mean(ceilings), rel=1e-12)
    assert "7 steps on, as the mean over forks at steps 4, 9" in str(found)
    assert found.estimate.num_pairs == 3


# ------------------------------------------------------------------ siblings


def test_the_first_sibling_is_the_study_without_siblings_and_is_not_trained_again():
    plain, whole = measured(), measured(4, 2)
    assert whole["logits"].values.tobytes() == plain["logits"].values.tobytes()
    assert whole["train_loss"].values.tobytes() == plain["train_loss"].values.tobytes()
    fresh, left = MemoryStore(), plan(design(4, 2)).steps_left
    measure(design(), fresh)
    again = plan(design(4, 2), fresh)
    assert again.steps_left == left - plan(design()).steps_left
    assert again.steps_left < plan(design()).steps_left  # the past is shared


def test_a_sibling_shares_the_past_and_no_batch_or_mask_after_the_fork():
    first, second = repeats(measured(4, 2))
    for arm in ("control", "reset", "hold"):
        losses = [one["train_loss"].sel(arm=arm).values for one in (first, second)]
        assert losses[0][:, :4].tobytes() == losses[1][:, :4].tobytes()
        assert np.all(losses[0][:, 4:] != losses[1][:, 4:])


def test_every_sibling_has_its_own_sham_of_exactly_zero():
    for found in repeats(measured(4, 2)):
        assert outputs(found, "sham").tobytes() == outputs(found, "control").tobytes()
    floor = effect(measured(4, 2), "reset", 11).floor
    assert floor is not None
    assert floor.value == floor.low == floor.high == 0.0


def displacements(study: Study, arm: str) -> np.ndarray:
    """How far a null is from its control, over how far its arm is; by repeat, seed and step."""
    ratios: list[np.ndarray] = []
    for found in repeats(measure(study, MemoryStore())):
        values = found["values"]
        null, treated = (
            np.linalg.norm(values.sel(arm=name).values - values.sel(arm="control").values, axis=-1)
            for name in (f"null of {arm}", arm)
        )
        ratios.append((null / treated)[..., 0])
    return np.array(ratios)


def carried() -> Study:
    arms = (one("hold", Hold(), Window(4, 8)),)
    return replace(
        design(4, 2),
        arms=arms,
        horizons=(1, 2, 3),
        seeds=(0, 1),
        probe=Carrier("moments", "*/exp_avg"),
    )


def test_the_null_of_a_sibling_is_matched_in_its_own_continuation():
    np.testing.assert_allclose(displacements(carried(), "hold"), 1.0, atol=0.05)


def test_a_null_that_is_compared_with_another_continuation_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("bygones.study.repeats._beside", lambda treatment, drawn: treatment)
    ratios = displacements(carried(), "hold")
    np.testing.assert_allclose(ratios[0], 1.0, atol=0.05)
    assert np.abs(ratios[1] - 1.0).max() > 0.05


def test_numbers_of_a_seed_are_means_over_its_repeats():
    for study in ((4, 2), (FORKS, 1), (FORKS, 2)):
        whole = measured(*study)
        each = np.stack([per_seed(one, "tv", "reset").values for one in repeats(whole)])
        np.testing.assert_allclose(per_seed(whole, "tv", "reset").values, each.mean(axis=0))
        found = effect(whole, "reset", 11)
        assert found.estimate.value == pytest.approx(each[:, :, -1].mean(), rel=1e-12)
        assert found.components is not None
        assert found.components.within == pytest.approx(_within(each[:, :, -1].T, study), rel=1e-9)
        assert found.estimate.num_pairs == 3
        assert "repeats averaged" in found.estimate.method


def _within(numbers: np.ndarray, study: tuple[int | tuple[int, ...], int]) -> float:
    """The mean square within seeds by least squares: one mean a seed, and one a fork."""
    forks = 1 if isinstance(study[0], int) else len(study[0])
    R, K = numbers.shape
    seed, fork = np.repeat(np.eye(R), K, axis=0), np.tile(np.arange(K) // study[1], R)
    design = np.concatenate([seed, np.eye(forks)[fork]], axis=1)
    rest = numbers.ravel() - design @ np.linalg.lstsq(design, numbers.ravel(), rcond=None)[0]
    return float(rest @ rest) / (R * K - np.linalg.matrix_rank(design))


def test_a_field_is_the_mean_over_repeats():
    whole = measured(4, 2)
    each = [function_field(one, "reset", 11).differences for one in repeats(whole)]
    np.testing.assert_allclose(
        function_field(whole, "reset", 11).differences, np.mean(each, axis=0)
    )
    assert function_field(whole, "reset", 11).floor == 0.0


def test_every_effect_can_be_said_of_both_together():
    said = [str(found) for found in all_effects(measured(FORKS, 2), ("tv", "accuracy"))]
    assert all(
        "2 forks a seed, 2 continuations a seed and fork" in one
        for one in said
        if "7 steps on" in one
    )


# ------------------------------------------------------------------ what is written down


def test_a_study_without_repeats_is_written_and_addressed_as_before():
    study = design()
    assert "siblings" not in design_to_json(study)
    assert "repeats" not in facts_of(measured()).to_dict()
    assert not any(
        "repeat" in entry.to_dict() for entry in read_manifest(STORE, study.name).entries
    )
    assert not any("@" in str(name) for name in measured().data_vars)
    assert study.digest() == replace(study, seeds=(5,)).digest()
    assert len({design().digest(), design(4, 2).digest(), design((4, 9)).digest()}) == 3


def test_a_design_with_repeats_is_read_back():
    study = design(FORKS, 2)
    again = study_from_json(design_to_json(study), [], list(study.seeds))
    assert (again.forks, again.siblings, again.digest()) == (FORKS, 2, study.digest())
    assert replace(study, seeds=(7,)).forks == FORKS
    assert facts_of(measured(FORKS, 2)).repeats == tuple(
        RepeatFacts(fork, sibling) for fork in FORKS for sibling in (0, 1)
    )


class _Script:
    """What is known of a script when a study is designed."""

    path = "train.py"

    def code(self) -> Digest:
        return "0"

    def parts(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"siblings": 0}, "siblings are 1 "),
        ({"later_forks": (4,)}, "forks must ascend"),
        ({"later_forks": (3,)}, "forks must ascend"),
        ({"recipe": _Script(), "siblings": 2}, "for recipes"),
        ({"recipe": _Script(), "later_forks": (9,)}, "for recipes"),
    ],
)
def test_what_does_not_compose_is_refused(changed: dict[str, object], sentence: str):
    with pytest.raises(DesignError, match=sentence):
        replace(design(), **changed)  # type: ignore[arg-type]


def test_siblings_of_a_run_without_randomness_are_refused():
    sources = Run(classifier, 0).sources
    kept = {name: sources[name] for name in sources if name not in ("order", "streams")}
    study = replace(design(4, 2), arms=design().arms[:2])
    with pytest.raises(DesignError, match="no order or stream"):
        make_branches(study, _Bare(kept))


@dataclass(frozen=True)
class _Bare:
    """A run with these sources."""

    sources: Mapping[str, AbstractSource]
