"""MLflow: the one file that imports it."""

from __future__ import annotations

import time
from typing import Any

from bygones.core.errors import StoreError
from bygones.core.extras import import_extra
from bygones.publish.export.base import TrackedRun, Tracker

_AT_ONCE = 500  # numbers in one request; a server takes 1000
_LONGEST = 500  # characters of a setting
_LONGEST_TAG = 5000


def write_mlflow(run: TrackedRun, place: str) -> str:
    """Write a run to MLflow: settings as parameters, curves as metrics, files as artifacts.

    `place`: a tracking URI, like http://server:5000 or sqlite:///mlflow.db. Returns the address of the run.
    """
    client_of: Any = import_extra("mlflow.tracking", "the export to MLflow")
    entities: Any = import_extra("mlflow.entities", "the export to MLflow")
    exceptions: Any = import_extra("mlflow.exceptions", "the export to MLflow")
    try:
        return _write(run, place, client_of.MlflowClient(tracking_uri=place), entities)
    except (exceptions.MlflowException, ImportError) as error:
        said = str(error).strip().splitlines()[0].rstrip(".")
        raise StoreError(
            f"MLflow cannot write to {place}: {said}. Give another place by --out."
        ) from error


def _write(run: TrackedRun, place: str, client: Any, entities: Any) -> str:
    experiment = client.get_experiment_by_name("bygones")
    number = experiment.experiment_id if experiment else client.create_experiment("bygones")
    made = client.create_run(number, run_name=run.name)
    there, now = made.info.run_id, int(1000 * time.time())
    client.log_batch(
        there,
        params=[entities.Param(key, str(value)[:_LONGEST]) for key, value in run.settings.items()],
        tags=[entities.RunTag(key, value[:_LONGEST_TAG]) for key, value in run.tags.items()],
    )
    metrics = [
        entities.Metric(name, value, now, step)
        for name, points in run.curves.items()
        for step, value in points
    ]
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(there, metrics=metrics[start : start + _AT_ONCE])
    for file in run.files:
        client.log_artifact(there, str(file))
    client.set_terminated(there)
    return f"run {there} of the experiment bygones at {place}"


MLFLOW = Tracker("mlflow", "sqlite:///mlflow.db", write_mlflow)
