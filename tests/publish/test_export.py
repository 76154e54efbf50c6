"""Exports to the real trackers hold the numbers of the study, the ledger or the check, read back by them."""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.synthetic import make_outcomes

from bygones.core.errors import MissingExtra, StoreError
from bygones.publish.export import TRACKERS
from bygones.publish.export.base import TrackedRun
from bygones.publish.export.runs import ledger_run, read_run, resume_run, study_run
from bygones.publish.result import Result
from bygones.store.ledger import write_ledger

CHECK = {
    "passed": False, "script": "examples/plain.py --seed {seed}", "interrupted_at": 39, "start": 20,
    "until": 119, "failed": ["scheduler"],
    "verdicts": [
        {"source": "scheduler", "outcome": "FAIL", "why": "not what was carried"},
        {"source": "weights", "outcome": "PASS", "why": "restored to the bit"},
    ],
    "costs": [{"source": "scheduler", "module": "", "by_seed": [0.01, 0.03], "ceiling": 0.046}],
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Result:
    return Result(make_outcomes(num_seeds=5, num_inputs=8))


@pytest.fixture(scope="module")
def run(result: Result) -> TrackedRun:
    return study_run(result)


def require(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_a_study_has_each_effect_at_each_horizon(result: Result, run: TrackedRun) -> None:
    for one in result.effects:
        points = dict(run.curves[f"{one.arm}/{one.metric}/effect"])
        assert points[one.horizon] == one.estimate.value
    assert run.settings["seeds"] == 5
    assert any(name.startswith("verdict of ") for name in run.tags)


def test_a_resume_check_has_its_verdicts_and_what_each_loss_moves(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    path.write_text(json.dumps(CHECK))
    run = resume_run(path)
    assert run.name == "resume plain.py"
    assert run.tags["scheduler"] == "FAIL: not what was carried"
    assert run.tags["passed"] == "no"
    assert run.curves["scheduler/moved by this loss"] == ((119, pytest.approx(0.02)),)
    assert run.curves["failed"] == ((119, 1.0),)


def test_a_ledger_has_its_losses(tmp_path: Path) -> None:
    lines = [
        {"step": step, "ids": "i", "batches": "b", "loss": loss, "holds": {}}
        for step, loss in ((0, None), (10, 0.5), (20, 0.25))
    ]
    write_ledger(
        tmp_path / "a.jsonl", {"run": "digits", "seed": 3, "contract": {"threads": 1}}, lines
    )
    run = ledger_run(tmp_path / "a.jsonl")
    assert run.curves["loss"] == ((10, 0.5), (20, 0.25))
    assert (run.settings["seed"], run.tags["contract threads"]) == (3, "1")


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "[]"), ("b.txt", "no JSON"), ("c.json", "{}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(StoreError, match="is no store"):
            read_run(str(tmp_path / name))


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    run: TrackedRun, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> Any:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=rf"pip install 'bygones\[{name}\]'"):
        TRACKERS[name].write(run, str(tmp_path))


def test_tensorboard_reads_every_point(run: TrackedRun, tmp_path: Path) -> None:
    require("tensorboard")
    reader: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    TRACKERS["tensorboard"].write(run, str(tmp_path))
    found = reader.EventAccumulator(str(next(tmp_path.iterdir())), {"scalars": 0}).Reload()
    assert set(found.Tags()["scalars"]) == set(run.curves)
    for name, points in run.curves.items():
        read = [(one.step, one.value) for one in found.Scalars(name)]
        assert read == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    with pytest.raises(StoreError, match="exists already"):
        TRACKERS["tensorboard"].write(run, str(tmp_path))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of MLflow's own packages
def test_mlflow_reads_every_number(
    run: TrackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = f"file://{tmp_path}/mlruns"
    TRACKERS["mlflow"].write(run, place)
    client = importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=place)
    (read,) = client.search_runs([client.get_experiment_by_name("bygones").experiment_id])
    assert read.data.params == {name: str(value) for name, value in run.settings.items()}
    assert run.tags.items() <= read.data.tags.items()
    assert read.data.metrics.keys() == run.curves.keys()
    for name in [*run.curves][:3]:
        history = client.get_metric_history(read.info.run_id, name)
        assert sorted((one.step, one.value) for one in history) == list(run.curves[name])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_mlflow_that_cannot_write_says_so(
    run: TrackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(StoreError, match="MLflow cannot write to"):
        TRACKERS["mlflow"].write(run, "nonsense://here")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_offline(run: TrackedRun, tmp_path: Path) -> None:
    require("wandb")
    said = TRACKERS["wandb"].write(run, str(tmp_path))
    assert "wandb sync" in said
    assert [path for path in (tmp_path / "wandb").rglob("*.wandb") if path.stat().st_size > 1000]
