"""Studies on workers that may be other machines: the same bits, or a sentence before anything is trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import PATIENT_RAY
from tests.helpers.study_recipes import TRAINED, at, one, small, unlucky
from tests.study.test_measure import fresh, proven_once, same

from bygones.core.errors import RecipeError, StoreError, WorkerError
from bygones.store import FolderStore, MemoryStore, RemoteStore
from bygones.study.certificate import certify
from bygones.study.design import Study
from bygones.study.executors import AbstractExecutor, Ray, Serial, Slurm
from bygones.study.measure import measure, run_seeds_elsewhere
from bygones.study.plan import plan
from bygones.training.interventions import Reset
from bygones.training.recipe import Recipe

pytestmark = pytest.mark.xdist_group("clusters")  # what they share is made once

__all__ = ["proven_once"]  # a fixture that acts on every test here too

ARMS = ("reset", "several", "swap")


def objects(folder: Path) -> set[str]:
    return {path.parent.name + path.name for path in (folder / "objects").glob("*/*")}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.long
def test_ray_gives_the_same_bits_as_serial(tmp_path):
    study = small(ARMS[:2], seeds=(0, 1))
    outcomes = measure(study, FolderStore(tmp_path / "here"))
    assert same(outcomes, fresh(study))
    there = measure(study, RemoteStore(f"file://{tmp_path}/there"), Ray(num_workers=2))
    assert same(there, outcomes)
    assert objects(tmp_path / "there") == objects(tmp_path / "here") != set()


def test_slurm_gives_the_same_bits_as_serial(tmp_path):
    pytest.importorskip("submitit", reason="needs bygones[slurm]")
    study = small(("reset",), seeds=(0,))  # each job begins a process of its own, and imports torch
    slurm = Slurm(2, tmp_path / "logs", local=True)
    assert same(measure(study, FolderStore(tmp_path / "store"), slurm), fresh(study))
    trained = dict(TRAINED)
    assert plan(study, FolderStore(tmp_path / "store")).steps_left == 0
    assert TRAINED["steps"] < trained["steps"] + 20  # a few steps, to plan


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_an_error_of_a_recipe_is_the_same_sentence_as_if_it_were_here(tmp_path):
    recipe = Recipe.of(unlucky, place="step")
    study = Study(recipe, [one("reset", Reset(), at(2))], fork_at=2, horizons=(3,), seeds=(0, 13))
    said = []
    for number, executor in enumerate((Serial(), Ray(num_workers=2))):
        with pytest.raises(RecipeError, match="seed 13: bad luck in the step") as caught:
            measure(study, FolderStore(tmp_path / str(number)), executor)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.usefixtures("ray_session")
@pytest.mark.long
def test_a_store_whose_folder_is_given_relative_is_the_same_everywhere(tmp_path, monkeypatch):
    study = small(("reset",), seeds=(0,))
    monkeypatch.chdir(tmp_path)  # where Ray's workers do not stand
    assert same(measure(study, FolderStore("store"), Ray(num_workers=2)), fresh(study))


@pytest.mark.long
def test_a_job_of_a_machine_that_is_lost_begins_again_on_another(tmp_path):
    pytest.importorskip("ray", reason="needs bygones[ray]")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the names of sockets in it must be short
    (tmp_path / "jobs").mkdir()
    said = subprocess.run(
        [sys.executable, "-m", "tests.helpers.ray_machines", str(tmp_path / "jobs")],
        cwd=Path(__file__).parents[2],
        env={
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "RAY_TMPDIR": folder,
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
            "RAY_USAGE_STATS_ENABLED": "0",
            **PATIENT_RAY,
        },
        capture_output=True,
        text=True,
        timeout=600,  # of what hangs
        check=False,
    )
    shutil.rmtree(folder, ignore_errors=True)
    assert said.stdout.splitlines()[-1:] == ["[0, 1]"], said.stderr
    begun = [path.name.split() for path in (tmp_path / "jobs").iterdir() if path.name != "lost"]
    assert len(begun) == 3  # one of the two twice
    assert len({number for number, _, _ in begun}) == 2


# ------------------------------------------------------------------ a worker that is not as it is here


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (
            lambda job: {"contract": replace(job.contract, torch="1.0")},
            WorkerError,
            "torch 1.0 there",
        ),
        (
            lambda job: {"addresses": replace(job.addresses, recipe="0")},
            WorkerError,
            "other code of",
        ),
        (lambda job: {"store": MemoryStore()}, StoreError, "does not see the study's store"),
    ],
    ids=["versions", "code", "store"],
)
def test_a_worker_that_is_not_as_it_is_here_trains_nothing(
    change: Callable[[Any], dict[str, Any]], kind: type[Exception], words: str
):
    planned = plan(small(("reset",), seeds=(0,)), MemoryStore())
    certify(planned)
    (job,) = planned.jobs()
    before = TRAINED["steps"]
    with pytest.raises(kind, match=words) as caught:
        run_seeds_elsewhere(replace(job, **change(job)))
    assert "\n" not in str(caught.value)
    assert TRAINED["steps"] == before
    assert run_seeds_elsewhere(job) > 0


class Boastful(AbstractExecutor):
    """Says that it has trained, where nobody sees it."""

    def map(self, function: Any, jobs: Any) -> Any:
        return iter([10 for _ in jobs])


def test_what_workers_trained_has_to_be_in_the_store():
    with pytest.raises(
        StoreError, match=r"workers have trained 2 seeds, like 0, that cannot be seen"
    ):
        measure(small(("reset",)), MemoryStore(), Boastful())


# ------------------------------------------------------------------ a store that disappears


@pytest.mark.parametrize("writes", [1, 4, 9, 14])
def test_a_store_that_disappears_is_a_sentence_and_what_is_finished_counts(writes, monkeypatch):
    study = small(ARMS)
    store = RemoteStore(f"memory://disappears-{writes}")
    whole, left = type(store._files).pipe_file, [writes]

    def write(files: Any, path: str, content: bytes, **settings: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionResetError("the other side\nhas gone")
        whole(files, path, content, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(type(store._files), "pipe_file", write)
        with pytest.raises(StoreError, match=r"cannot be written: ConnectionResetError") as caught:
            measure(study, store)
    assert "\n" not in str(caught.value)
    assert same(measure(study, store), fresh(study))


ASK: dict[str, Callable[[RemoteStore, str], Any]] = {
    "info": lambda store, digest: store.has(digest),
    "cat_file": lambda store, digest: store.get(digest),
    "ls": lambda store, digest: store.records(digest),
    "cat_file, of records": lambda store, digest: store.records(digest),
    "info, of a record": lambda store, digest: store.has_record(digest, "one"),
}


@pytest.mark.parametrize("name", list(ASK))
def test_a_store_that_cannot_be_asked_is_not_taken_for_an_empty_one(name, monkeypatch):
    store = RemoteStore(f"memory://silent-{len(name)}")
    digest = store.put(b"bygones")
    store.write_record(digest, "one", {"is": 1})

    def fail(*arguments: Any, **settings: Any) -> None:
        raise TimeoutError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(type(store._files), name.partition(",")[0], fail)
        with pytest.raises(
            StoreError, match=r"memory://silent-\d+: the store cannot be read: Timeout"
        ):
            ASK[name](store, digest)
    assert ASK[name](store, digest)
