"""What a store holds: sizes by study, and the removal of one, which leaves the others readable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.commands import Said, run_here
from tests.helpers.study_recipes import small

from bygones.core.errors import DesignError, StoreError, UnknownName
from bygones.core.study_facts import facts_of
from bygones.publish.result import Result
from bygones.store import FolderStore
from bygones.store.contents import measure_store, remove_study
from bygones.store.outcomes import read_manifest, read_manifests, read_outcomes
from bygones.study.measure import measure
from bygones.study.plan import plan

ONE = small(("reset",), horizons=(0, 1, 3), name="one")
OTHER = small(("reset", "hold"), horizons=(0, 1, 3, 5), seeds=(1, 2), name="other")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    for study in (ONE, OTHER):
        measure(study, store=FolderStore(folder), merge=False)
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> FolderStore:
    """Two studies that share the past of one seed, and one arm of it."""
    return FolderStore(shutil.copytree(filled, tmp_path / "store"))


def test_sizes_add_up_to_what_lies_on_the_disk(store: FolderStore) -> None:
    found = measure_store(store)
    own = {one.study: one.own_bytes for one in found.studies}
    shared = {one.study: one.shared_bytes for one in found.studies}
    assert min(own.values()) > 0
    assert shared["one"] == shared["other"] > 0
    assert found.unlisted == found.damaged == 0
    objects = [path for path in (store.folder / "objects").rglob("*") if path.is_file()]
    assert sum(own.values()) + shared["one"] == sum(path.stat().st_size for path in objects)
    assert found.total == sum(own.values()) + shared["one"] + found.records


def test_a_removed_study_leaves_the_other_as_it_was(store: FolderStore) -> None:
    before = read_outcomes(store, read_manifest(store, "one"))
    size = {one.study: one.own_bytes for one in measure_store(store).studies}
    gone = remove_study(store, "other")
    assert gone.num_bytes == size["other"]
    assert [*read_manifests(store)] == ["one"]
    assert read_outcomes(store, read_manifest(store)).identical(before)
    assert measure_store(store).studies[0].shared_bytes == 0
    assert plan(ONE, store).steps_left == 0
    assert plan(OTHER, store).steps_left > 0


def test_when_the_last_study_is_removed_no_object_is_left(store: FolderStore) -> None:
    for name in ("one", "other"):
        remove_study(store, name)
    found = measure_store(store)
    assert (found.studies, found.unlisted) == ((), 0)
    assert not [path for path in (store.folder / "objects").rglob("*")]
    kinds = {path.stem for path in (store.folder / "records").rglob("*.json")}
    assert kinds <= {"certificate", "choice"}  # what is known of the recipe


def test_a_removal_that_was_killed_is_finished_by_another(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {one.study: one.own_bytes for one in measure_store(store).studies}
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "delete_record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            remove_study(store, "other")
    remove_study(store, "other")
    found = measure_store(store)
    assert (found.unlisted, found.studies[0].study) == (0, "one")
    assert found.studies[0].own_bytes > size["one"]


def test_nothing_is_removed_while_another_process_trains(store: FolderStore) -> None:
    with store.training(), pytest.raises(StoreError, match="is training into this store"):
        remove_study(store, "one")
    with pytest.raises(UnknownName, match="study in this store"):
        remove_study(store, "two")
    assert len(read_manifests(store)) == 2


@pytest.fixture
def bygones(store: FolderStore, monkeypatch, capsys) -> Callable[..., Said]:
    monkeypatch.chdir(store.folder.parent)
    return lambda *arguments: run_here(monkeypatch, capsys, *arguments)


def test_the_commands_list_measure_and_remove(bygones: Callable[..., Said]) -> None:
    listed = bygones("store", "ls", "store").out
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["one", "2"], ["other", "2"]]
    assert "shared with others" in bygones("store", "size", "store").out
    refused = bygones("store", "rm", "store", "one")
    assert refused.code == DesignError.exit_code
    assert "--yes" in refused.err
    assert "Deleted one" in bygones("store", "rm", "store", "one", "--yes").out
    assert "one " not in bygones("store", "ls", "store").out


def write_name_alone(result: Result, folder: Path, **_: object) -> Path:
    """In the place of `Result.write_report`, which takes long: a page with the study's name."""
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(facts_of(result.outcomes).study)
    return folder / "report.html"


def test_a_report_of_several_studies_has_a_page_of_all(
    bygones: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Result, "write_report", write_name_alone)
    page = tmp_path / "store-report" / "index.html"
    assert bygones("report", "store").out.split() == ["Report:", "store-report/index.html"]
    text = page.read_text()
    for name in ("one", "other"):
        assert f'<a href="{name}/report.html">{name}</a>' in text
        assert (page.parent / name / "report.html").read_text() == name
    assert "reset" in text
    said = bygones("report", "store", "--study", "one", "--out", "alone").out
    assert said.split() == ["Report:", "alone/report.html"]


def test_studies_of_one_store_are_compared_by_name(bygones: Callable[..., Said]) -> None:
    assert "choose one of: " in bygones("compare", "store", "store").err
    said = bygones("compare", "store:one", "store:other")
    assert "one and other trained the same runs" in said.err
