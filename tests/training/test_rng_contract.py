"""The RNG contract, written down: what it says is drawn is what is drawn, and looking leaves no trace."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import BATCH_SIZE, NUM_EXAMPLES, classifier, plain, small

from bygones.store import FolderStore, MemoryStore
from bygones.store.contracts import Contracts, differences, read_contracts, stream_rows
from bygones.store.outcomes import read_manifest
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.training.contract import Contract
from bygones.training.orders import Sequential
from bygones.training.recipe import Parts, supervised
from bygones.training.rng_contract import addressed_contract
from bygones.training.run import Run

ALL = ("init", "order", "augmentation", "dropout", "numpy", "python")


def draws_in_python(seed: int) -> Parts:
    parts = plain(seed)

    def step(parts: Parts, batch: object) -> torch.Tensor:
        random.random()
        return supervised(parts, batch)

    parts.train_step = step
    return parts


def draws_in_numpy(seed: int) -> Parts:
    parts = plain(seed)

    def step(parts: Parts, batch: object) -> torch.Tensor:
        np.random.random()
        return supervised(parts, batch)

    parts.train_step = step
    return parts


def keeps_its_batches(seed: int) -> Parts:
    """An augmentation that is there and draws nothing; weights that are built without drawing."""
    parts = plain(seed)
    parts.augment = lambda batch, generator: batch
    return parts


@pytest.mark.parametrize(
    ("recipe", "drawn"),
    [
        (classifier, {"init", "order", "augmentation", "dropout"}),
        (plain, {"init", "order"}),
        (draws_in_python, {"init", "order", "python"}),
        (draws_in_numpy, {"init", "order", "numpy"}),
        (keeps_its_batches, {"init", "order"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("at", [0, 2])
def test_what_draws_is_seen(recipe, drawn, at):
    run = Run(recipe, 0)
    run.advance(at)
    document = addressed_contract(run)
    assert tuple(stream["name"] for stream in document["streams"]) == ALL
    assert {stream["name"] for stream in document["streams"] if stream["drawn"]} == drawn
    assert all(bool(stream["drawn_by"]) == stream["drawn"] for stream in document["streams"])
    assert document["looked_at"] == [at, at + 3]
    json.dumps(document, allow_nan=False)


def in_order(seed: int) -> Parts:
    parts = plain(seed)
    parts.order = Sequential(NUM_EXAMPLES, BATCH_SIZE)
    return parts


def test_an_order_that_never_draws_is_said_not_to():
    streams = addressed_contract(Run(in_order, 0))["streams"]
    assert {s["name"] for s in streams if s["drawn"]} == {"init"}


@pytest.mark.parametrize("recipe", [classifier, draws_in_python, keeps_its_batches])
def test_looking_leaves_no_trace(recipe):
    looked, other = Run(recipe, 0), Run(recipe, 0)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    for run in (looked, other):
        run.advance(2)
    augment = looked.parts.augment
    addressed_contract(looked)
    assert looked.parts.augment is augment
    assert looked.snapshot().digest() == other.snapshot().digest()
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    for run in (looked, other):
        run.advance(9)
    assert looked.snapshot().digest() == other.snapshot().digest()
    assert looked.ledger_entry() == other.ledger_entry()


def test_what_an_import_draws_is_not_the_recipes(monkeypatch):
    import tests.training.test_rng_contract as here

    monkeypatch.setattr(here, "_imported", False, raising=False)
    run = Run(imports_once, 0)
    assert "python" in run.parts.built_from
    init = addressed_contract(run)["streams"][0]
    assert init["drawn_by"] == "the recipe, from torch"


def imports_once(seed: int) -> Parts:
    import tests.training.test_rng_contract as here

    if not here._imported:  # type: ignore[attr-defined]
        here._imported = True  # type: ignore[attr-defined]
        random.random()
    return plain(seed)


def test_surroundings_are_what_they_are(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with Contract.here().in_force():
        document = addressed_contract(Run(classifier, 0))
    assert document["dtypes"] == ["float32"]
    assert document["threads"] == 1
    assert document["deterministic"] is True
    assert document["environment"]["OMP_NUM_THREADS"] == "1"
    assert document["environment"]["PYTHONHASHSEED"] is None


def test_a_study_keeps_it(tmp_path):
    study = small(("reset",), horizons=(0, 1), seeds=(0, 1))
    planned = plan(study, MemoryStore()).facts.rng
    assert planned is not None
    assert planned["contract"] == "addressed"
    outcomes = measure(study, FolderStore(tmp_path / "store"))
    kept = read_manifest(FolderStore(tmp_path / "store")).facts.rng
    assert kept == outcomes.attrs["rng"]
    assert read_contracts(tmp_path / "store").rng == kept


def test_differences_of_two_contracts_are_named():
    document = addressed_contract(Run(classifier, 0))
    one = Contracts({"threads": 1}, document)
    assert differences(one, Contracts({"threads": 1}, {**document, "looked_at": [7, 10]})) == []
    streams = [dict(stream) for stream in reversed(document["streams"])]
    assert differences(one, Contracts({"threads": 1}, {**document, "streams": streams})) == []
    streams[0]["drawn"] = True
    environment = {**document["environment"], "OMP_NUM_THREADS": "9"}
    other = Contracts(
        {"threads": 2, "cpu": "x"}, {**document, "streams": streams, "environment": environment}
    )
    assert [what for what, *_ in differences(one, other)] == [
        "numeric/threads", "numeric/cpu", "rng/streams/python/drawn",
        "rng/environment/OMP_NUM_THREADS",
    ]  # fmt: skip
    assert differences(one, Contracts({"threads": 1}, None)) == [("rng", document, None)]
    assert ("numeric/cpu", "not recorded", "x") in differences(one, other)
    assert [row[0] for row in stream_rows(document)] == list(ALL)
