"""Several models of one run: all are observed, one leads, and what does not reach it is said to."""

from pathlib import Path

import pytest
import torch
import xarray as xr
from tests.helpers.specimen_recipes import trained

from bygones.analysis.effects import effect
from bygones.analysis.observed_models import observing
from bygones.core.errors import ProbeError, RecipeError, UnknownName
from bygones.core.values import Window
from bygones.publish.report import write_report
from bygones.store import MemoryStore
from bygones.store.outcomes import read_manifest, read_outcomes
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.training.interventions import Reset
from bygones.training.probes import Logits, Values
from bygones.training.recipe import Memory, Parts, Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment

AVERAGED = Recipe.of(trained, optimizer="adam", averages="ema-buffers")
AT = Window(4, 5)
ARMS = [
    Arm("reset averages", Treatment("averages", Reset(), AT)),
    Arm("reset moments", Treatment("moments", Reset(), AT)),
]


def averaged(probe: Logits | Values) -> Study:
    return Study(AVERAGED, ARMS, 4, (0, 6), seeds=range(3), probe=probe)


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def outcomes(store: MemoryStore) -> xr.Dataset:
    return measure(averaged(Logits(also=("averages",))), store)


def test_each_model_has_the_outputs_that_it_has_alone(outcomes):
    assert outcomes.attrs["models"] == ["model", "averages"]
    for name, variable in (("model", "logits"), ("averages", "logits:averages")):
        alone = measure(averaged(Logits(name)))
        assert list(alone) == ["logits", "train_loss", "diverged_at", "labels", "equal_from"]
        assert alone["logits"].values.tobytes() == outcomes[variable].values.tobytes()


def test_a_new_average_is_the_model_it_averages(outcomes):
    new = outcomes["logits:averages"].sel(arm="reset averages", step=4)
    assert new.values.tobytes() == outcomes["logits"].sel(arm="control", step=4).values.tobytes()


def test_what_does_not_reach_the_observed_model_is_said_to_and_what_it_does_change(outcomes):
    said = str(effect(outcomes, "reset averages", 10))
    assert "does not reach model, which is observed" in said
    assert "in every bit, up to 6 steps on; it changes those of averages (3 seed pairs)" in said
    assert "exactly 0 TV" not in said
    # At horizon 0 a reset of moments has changed no output yet, but it reaches the model later.
    assert "by exactly 0 TV" in str(effect(outcomes, "reset moments", 4))
    sham = str(effect(outcomes, "sham", 10))
    assert "does not reach" not in sham


def test_any_observed_model_may_lead(outcomes, store):
    lead = observing(outcomes, "averages")
    assert lead.attrs["models"] == ["averages", "model"]
    assert lead["logits"].values.tobytes() == outcomes["logits:averages"].values.tobytes()
    assert lead["logits:model"].values.tobytes() == outcomes["logits"].values.tobytes()
    assert "does not reach" not in str(effect(lead, "reset averages", 10))
    assert xr.Dataset.identical(observing(lead, "model")[[*outcomes]], outcomes[[*outcomes]])
    assert observing(outcomes, "model") is outcomes
    with pytest.raises(UnknownName, match="averages"):
        observing(outcomes, "average")
    again = read_outcomes(store, read_manifest(store))
    assert again.equals(outcomes)
    assert again.attrs["models"] == ["model", "averages"]


@pytest.mark.usefixtures("page_only")
def test_the_report_leads_with_the_first_and_shows_the_others(outcomes, tmp_path: Path):
    page = write_report(outcomes, tmp_path).read_text()
    assert "Other models that are alive" in page
    assert "Does not reach the model that is observed" in page
    rows = (tmp_path / "tables" / "models.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["averages", "reset moments"],
        ["averages", "reset averages"],
    ]
    alone = write_report(outcomes.drop_vars("logits:averages").assign_attrs(models=[]), tmp_path)
    assert "Other models that are alive" not in alone.read_text()


def test_lanes_observe_them_alike(outcomes):
    lanes = measure(averaged(Logits(also=("averages",))), lanes=4)
    for name in ("logits", "logits:averages"):
        xr.testing.assert_allclose(lanes[name], outcomes[name], rtol=1e-4, atol=1e-5)


def with_a_teacher(seed: int) -> Parts:
    parts, teacher = trained(seed), trained(seed + 1)
    parts.others = {"teacher": teacher.model, "mine": Memory(trained(seed + 2).model[0])}  # pyright: ignore
    return parts


def test_a_module_in_others_is_a_model_by_its_name():
    run = Run(with_a_teacher, 0)
    inputs, _ = run.parts.probe_set or (None, None)
    with torch.no_grad():
        wanted = run.parts.others["teacher"].eval()(inputs).double().numpy()
    assert run.observe(Values(of="teacher")).tobytes() == wanted.tobytes()
    assert run.observe(Values()).tobytes() != wanted.tobytes()
    with pytest.raises(RecipeError, match=r"observes 'pupil'.*It has: model, teacher"):
        run.observe(Logits(of="pupil"))


def test_models_with_other_outputs_are_not_observed_together():
    arms = [Arm("reset moments", Treatment("moments", Reset(), AT))]
    study = Study(with_a_teacher, arms, 4, (0, 6), range(2), probe=Values(also=("mine",)))
    with pytest.raises(ProbeError, match="outputs of one shape: those of 'mine' are"):
        measure(study)
