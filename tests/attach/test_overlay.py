"""A script's twins see its files, write only their own, and leave the originals as they were.

Everything happens in forked children: the audit hook and the wrapped functions cannot be taken out again.
"""

from __future__ import annotations

import builtins
import fcntl
import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from bygones.attach.isolation.overlay import (
    FixedPathError,
    Overlay,
    detach_overlay,
    flush_all,
    guarding_native_writes,
)


def in_child(work: Callable[[], object]) -> None:
    """Runs `work` in a forked child, and fails as it does."""
    said, says = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest may have threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            os.write(says, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(status)
    os.close(says)
    with open(said, "rb") as pipe:
        report = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, report or f"the child ended with {status}"


def digest(folder: Path) -> str:
    """Of all names, links, modes, times and contents."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        total.update(
            f"{path} {found.st_mode} {found.st_mtime_ns if path.is_file() else 0} ".encode()
        )
        if path.is_symlink():
            total.update(os.readlink(path).encode())
        elif path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Place:
    lower: Path
    base: Path

    def enter(self, name: str = "own", allowed: tuple[Path, ...] = ()) -> Overlay:
        tempfile.tempdir = str(self.base / "tmp")
        overlay = Overlay(self.lower, self.base / "arms" / name, allowed)
        overlay.enter()
        return overlay


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder with a script's files, which must be the same after each test."""
    lower = tmp_path / "lower"
    (lower / "runs" / "old").mkdir(parents=True)
    (lower / "data" / "a" / "deep").mkdir(parents=True)
    (lower / "empty").mkdir()
    (tmp_path / "beside").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "beside" / "set.txt").write_text("beside")
    (lower / "log.txt").write_text("before\n")
    (lower / "runs" / "one.txt").write_text("one")
    (lower / "runs" / "two.txt").write_text("two")
    (lower / "runs" / "old" / "three.txt").write_text("three")
    (lower / "data" / "a" / "deep" / "x.csv").write_text("1,2")
    (lower / "latest").symlink_to("runs/one.txt")
    (lower / "linked").symlink_to("../beside")
    (lower / "nowhere").symlink_to("../beside/none")
    before = digest(tmp_path / "lower"), digest(tmp_path / "beside")
    yield Place(lower, tmp_path)
    assert (digest(tmp_path / "lower"), digest(tmp_path / "beside")) == before


def appends(path: str, text: str = "more") -> None:
    with open(path, "a") as file:
        file.write(text)


def writes(path: str | Path, text: str = "new") -> None:
    with open(path, "w") as file:
        file.write(text)


def edits_in_place() -> None:
    with open("runs/one.txt", "r+") as file:
        file.write("X")


def uses_os_open() -> None:
    handle = os.open("runs/one.txt", os.O_WRONLY | os.O_TRUNC)
    os.write(handle, b"new")
    os.close(handle)


def makes_and_fills() -> None:
    os.makedirs("runs/old", exist_ok=True)
    os.makedirs("runs/old/newer/newest", exist_ok=True)
    writes("runs/old/newer/newest/x.txt")


def renames_over() -> None:
    writes("runs/tmp.txt")
    os.replace("runs/tmp.txt", "runs/one.txt")


def empties_a_folder() -> None:
    shutil.rmtree("runs")
    os.mkdir("runs")
    writes("runs/x.txt")


def changes_folder() -> None:
    os.chdir("runs/old")
    writes("three.txt")
    writes("../one.txt")
    os.chdir("../..")


def moves_a_folder() -> None:
    os.rename("runs", "kept")
    os.mkdir("runs")
    writes("kept/one.txt")
    writes("runs/one.txt", "again")


def renames_onto_a_folder() -> None:
    os.mkdir("fresh")
    writes("fresh/x.txt")
    os.rename("fresh", "empty")


def makes_links() -> None:
    os.link("runs/one.txt", "hard.txt")
    appends("hard.txt")
    os.symlink("runs/two.txt", "soft.txt")
    appends("soft.txt")


def copies_a_tree() -> None:
    shutil.copytree("runs", "copy")
    appends("copy/old/three.txt")
    shutil.move("copy/one.txt", "data/a/deep/x.csv")


def removes() -> None:
    os.remove("log.txt")
    Path("runs/old/three.txt").unlink()
    os.rmdir("runs/old")


def writes_by_file_io() -> None:
    with io.FileIO("data/../runs/one.txt", "w") as file:
        file.write(b"new")


ACTS: dict[str, tuple[Callable[[], object], dict[str, str | None]]] = {
    "read": (
        lambda: None,
        {"runs/one.txt": "one", "log.txt": "before\n", "linked/set.txt": "beside"},
    ),
    "new": (lambda: writes("new.txt"), {"new.txt": "new"}),
    "overwrite": (lambda: writes("log.txt"), {"log.txt": "new"}),
    "nested": (
        lambda: writes("runs/old/three.txt"),
        {"runs/old/three.txt": "new", "runs/one.txt": "one"},
    ),
    "new, nested": (
        lambda: writes("data/a/deep/y"),
        {"data/a/deep/y": "new", "data/a/deep/x.csv": "1,2"},
    ),
    "append": (lambda: appends("runs/one.txt"), {"runs/one.txt": "onemore"}),
    "in place": (edits_in_place, {"runs/one.txt": "Xne"}),
    "os.open": (uses_os_open, {"runs/one.txt": "new"}),
    "FileIO": (writes_by_file_io, {"runs/one.txt": "new"}),
    "bytes": (lambda: writes(os.fsdecode(b"runs/one.txt")), {"runs/one.txt": "new"}),
    "truncate": (lambda: os.truncate("runs/one.txt", 1), {"runs/one.txt": "o"}),
    "Path.write_text": (lambda: Path("runs/one.txt").write_text("new"), {"runs/one.txt": "new"}),
    "Path.touch": (lambda: Path("runs/one.txt").touch(), {"runs/one.txt": "one"}),
    "chmod": (lambda: os.chmod("runs/one.txt", 0o600), {"runs/one.txt": "one"}),
    "makedirs": (
        makes_and_fills,
        {"runs/old/newer/newest/x.txt": "new", "runs/old/three.txt": "three"},
    ),
    "rename over": (renames_over, {"runs/one.txt": "new", "runs/tmp.txt": None}),
    "rename": (lambda: os.rename("log.txt", "runs/log"), {"log.txt": None, "runs/log": "before\n"}),
    "rename, write": (
        lambda: (os.rename("log.txt", "runs/log"), appends("runs/log")),
        {"runs/log": "before\nmore"},
    ),
    "rename folder": (
        moves_a_folder,
        {
            "kept/one.txt": "new",
            "kept/two.txt": "two",
            "runs/one.txt": "again",
            "runs/two.txt": None,
        },
    ),
    "rename onto folder": (renames_onto_a_folder, {"empty/x.txt": "new", "fresh": None}),
    "remove": (removes, {"log.txt": None, "runs/old": None, "runs/one.txt": "one"}),
    "remove links": (
        lambda: (os.remove("latest"), os.remove("linked")),
        {"latest": None, "linked": None, "runs/one.txt": "one"},
    ),
    "rmdir": (lambda: os.rmdir("empty"), {"empty": None}),
    "symlink": (lambda: os.symlink("../log.txt", "runs/soft"), {"runs/soft": "before\n"}),
    "rmtree": (empties_a_folder, {"runs/x.txt": "new", "runs/one.txt": None, "runs/old": None}),
    "copy": (lambda: shutil.copy("log.txt", "runs/one.txt"), {"runs/one.txt": "before\n"}),
    "copy2": (lambda: shutil.copy2("log.txt", "runs"), {"runs/log.txt": "before\n"}),
    "copytree": (
        copies_a_tree,
        {"copy/old/three.txt": "threemore", "copy/two.txt": "two", "data/a/deep/x.csv": "one"},
    ),
    "links": (
        makes_links,
        {
            "hard.txt": "onemore",
            "runs/one.txt": "onemore",
            "soft.txt": "twomore",
            "runs/two.txt": "twomore",
        },
    ),
    "through a link": (lambda: writes("latest"), {"latest": "new", "runs/one.txt": "new"}),
    "through a link that leads out": (lambda: writes("linked/set.txt"), {"linked/set.txt": "new"}),
    "through a link to nothing": (lambda: writes("nowhere"), {"nowhere": "new"}),
    "chdir": (
        changes_folder,
        {"runs/old/three.txt": "new", "runs/one.txt": "new", "runs/two.txt": "two"},
    ),
    "dots": (
        lambda: (writes("log.txt"), writes("runs/../data/../runs/one.txt")),
        {"empty/../log.txt": "new", "runs/one.txt": "new", "data/../log.txt": "new"},
    ),
    "outside": (
        lambda: None,
        {"../beside/set.txt": "beside", "runs/../../beside/set.txt": "beside"},
    ),
}


@pytest.mark.parametrize("name", ACTS)
def test_a_relative_path_works_unchanged(place: Place, name: str) -> None:
    act, expected = ACTS[name]

    def work() -> None:
        place.enter()
        act()
        for path, content in expected.items():
            assert os.path.lexists(path) == (content is not None), path
            assert content is None or Path(path).read_text() == content
            assert content is None or open(place.lower / path).read() == content
            assert content is None or open(os.path.join(os.getcwd(), path)).read() == content

    in_child(work)


def marks(path: str) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # not every file system can
            os.setxattr(path, "user.mark", b"1")
    else:
        os.utime(path)


def test_attributes_are_changed_of_copies_and_kept_by_them(place: Place) -> None:
    file = place.lower / "runs" / "one.txt"
    before = file.stat().st_mode
    file.chmod(0o641)
    original = file.stat()

    def work(change: Callable[[str], object], number: int) -> None:
        place.enter(str(number))
        change("runs/one.txt")
        copy = os.stat("runs/one.txt")
        assert copy.st_ino != original.st_ino
        assert copy.st_mode == original.st_mode

    for number, change in enumerate([lambda path: os.chown(path, -1, -1), marks, appends, writes]):
        in_child(lambda change=change, number=number: work(change, number))
    assert kept_attributes(file.stat()) == kept_attributes(original)
    file.chmod(before)


def kept_attributes(found: os.stat_result) -> tuple[int, ...]:
    """A file's attributes but for its access time, which copying the file may change."""
    owner = (found.st_uid, found.st_gid)
    return (
        found.st_mode,
        found.st_ino,
        *owner,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def test_what_the_system_refuses_it_still_refuses(place: Place) -> None:
    def work() -> None:
        place.enter()
        for act, error in [
            (lambda: os.mkdir("runs"), FileExistsError),
            (lambda: open("log.txt", "x"), FileExistsError),
            (lambda: open("missing/x", "w"), FileNotFoundError),
            (lambda: open("runs", "w"), IsADirectoryError),
            (lambda: os.remove("runs"), (IsADirectoryError, PermissionError)),
            (lambda: os.rmdir("runs"), OSError),
            (lambda: shutil.copyfile("log.txt", place.lower / "log.txt"), shutil.SameFileError),
        ]:
            with pytest.raises(error) as caught:
                act()
            assert not isinstance(caught.value, FixedPathError)

    in_child(work)


@pytest.mark.parametrize("folder", ["", "runs"])
@pytest.mark.parametrize("kind", [str, Path])
def test_arrays_and_tensors_are_saved_to_copies(place: Place, folder: str, kind: type) -> None:
    weights = {"w": torch.arange(3.0)}
    for name in ("a.npy", "a.npz", "a.pt", "b.pt", "a.st", "b.st"):
        (place.lower / folder / name).write_text("old")
    before = digest(place.lower)

    def work() -> None:
        place.enter()
        with guarding_native_writes():
            at = Path(folder)
            np.save(kind(at / "a.npy"), np.arange(3))
            np.savez(kind(at / "a.npz"), x=np.arange(3))
            torch.save(weights, kind(at / "a.pt"))
            torch.save(obj=weights, f=kind(place.lower / at / "b.pt"))
            safetensors.torch.save_file(weights, kind(at / "a.st"))
            safetensors.numpy.save_file({"w": np.ones(2)}, filename=kind(place.lower / at / "b.st"))
            torch.save(weights, io.BytesIO())
        assert np.load(at / "a.npy").tolist() == [0, 1, 2]
        assert torch.equal(torch.load(at / "a.pt")["w"], weights["w"])
        assert torch.equal(torch.load(place.lower / at / "b.pt")["w"], weights["w"])
        assert torch.equal(safetensors.torch.load_file(at / "a.st")["w"], weights["w"])
        assert safetensors.numpy.load_file(at / "b.st")["w"].tolist() == [1, 1]
        assert type(torch.save).__name__ == "function"
        assert not any(name.endswith("~") for name in os.listdir())

    in_child(work)
    assert digest(place.lower) == before
    for name in ("a.npy", "a.npz", "a.pt", "b.pt", "a.st", "b.st"):
        (place.lower / folder / name).unlink()


def test_an_absolute_path_under_the_original_is_led_into_the_overlay(place: Place) -> None:
    def work() -> None:
        place.enter()
        script = place.lower / "train.py"  # as its `__file__` says
        out = script.parent / "runs"
        os.makedirs(out / "new", exist_ok=True)
        for path in (out / "one.txt", out / "new" / "x.txt", place.lower / "x.txt"):
            writes(path)
            assert path.read_text() == "new"
        assert open(os.fsencode(out / "two.txt")).read() == "two"
        assert Path("runs/one.txt").read_text() == Path("runs/new/x.txt").read_text() == "new"
        assert sorted(p.name for p in out.iterdir()) == ["new", "old", "one.txt", "two.txt"]
        assert sorted(os.listdir(path=out)) == ["new", "old", "one.txt", "two.txt"]
        assert sorted(entry.name for entry in os.scandir(out)) == [
            "new",
            "old",
            "one.txt",
            "two.txt",
        ]
        handle = os.open(out / "six.txt", os.O_WRONLY | os.O_CREAT)
        os.close(handle)
        os.remove(out / "six.txt")
        os.unlink(out / "two.txt")
        assert sorted(os.listdir("runs")) == ["new", "old", "one.txt"]
        os.rename(src=out / "one.txt", dst=out / "four.txt")
        assert not (out / "one.txt").exists()
        os.chdir(out)
        writes("five.txt")
        assert os.path.samefile("five.txt", place.base / "arms" / "own" / "runs" / "five.txt")

    in_child(work)


def test_links_of_the_overlay_do_not_look_like_links(place: Place) -> None:
    def work() -> None:
        place.enter()
        appends("runs/new.txt")
        for top in (Path(), place.lower, Path.cwd()):
            for name in ("log.txt", "runs", "runs/one.txt", "runs/new.txt", "data/a/deep"):
                assert not (top / name).is_symlink()
                assert (top / name).resolve(strict=True).name == Path(name).name
                assert os.path.realpath(top / name, strict=True).endswith(name)
                assert os.path.lexists(top / name)
                with pytest.raises(OSError, match="Invalid argument"):
                    os.readlink(top / name)
            assert os.readlink(top / "latest") == "runs/one.txt"
            assert (top / "linked").is_symlink()
        Path("log.txt").resolve().write_text("new")
        assert open("log.txt").read() == "new"

    in_child(work)


def test_what_is_beside_the_working_directory_is_found(place: Place) -> None:
    def work() -> None:
        place.enter()
        beside = place.base / "beside" / "set.txt"
        for folder, up in ((".", ".."), ("runs/old", "../../..")):
            os.chdir(folder)
            path = os.path.join(up, "beside", "set.txt")
            for found in (path, os.path.abspath(path), Path(path).resolve(), Path(path).absolute()):
                assert open(found).read() == "beside"
                with pytest.raises(FixedPathError):
                    writes(found)
            assert os.path.abspath(path) == os.path.realpath(filename=path) == str(beside)
            assert os.path.abspath(__file__) == __file__

    in_child(work)


def test_a_link_elsewhere_that_leads_back_is_no_way_round(place: Place) -> None:
    (place.base / "tmp" / "original").symlink_to(place.lower / "log.txt")
    (place.base / "tmp" / "folder").symlink_to(place.lower / "runs")
    (place.base / "tmp" / "own").symlink_to(place.base / "arms" / "own")

    def work() -> None:
        place.enter()
        for path in ("original", "folder/one.txt", "own/runs/one.txt"):
            with pytest.raises(FixedPathError):
                writes(place.base / "tmp" / path)
        writes(place.base / "tmp" / "own" / "x.txt")
        assert Path("x.txt").read_text() == "new"

    in_child(work)


def test_workers_of_one_twin_may_write_at_once(place: Place) -> None:
    def work() -> None:
        place.enter()
        pids = []
        for number in range(8):
            pids.append(os.fork())
            if pids[-1] == 0:
                try:
                    writes(f"data/a/deep/{number}")
                    appends("runs/one.txt", "x")
                finally:
                    os._exit(os.path.getsize(f"data/a/deep/{number}") != 3)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
        assert Path("runs/one.txt").read_text() == "onexxxxxxxx"
        assert len(os.listdir("data/a/deep")) == 9

    in_child(work)


def test_a_fixed_path_elsewhere_is_refused(place: Place) -> None:
    def work() -> None:
        place.enter()
        fixed = place.base / "beside" / "out.txt"
        for act in (
            lambda: open(fixed, "w"),
            lambda: open("../beside/set.txt", "a"),
            lambda: os.mkdir(place.base / "beside" / "new"),
            lambda: os.remove(place.base / "beside" / "set.txt"),
            lambda: os.rename("log.txt", fixed),
            lambda: shutil.copy("log.txt", fixed),
            lambda: io.FileIO(str(place.lower / "log.txt"), "w"),
        ):
            with pytest.raises(FixedPathError, match=r"fixed path.*Try.*\{seed\}") as caught:
                act()
            assert caught.value.exit_code == 8
            assert str(caught.value).startswith(("/", "../"))
        with guarding_native_writes(), pytest.raises(FixedPathError):
            torch.save({}, fixed)
        os.makedirs(place.base / "beside", exist_ok=True)  # it is there; nothing is written
        assert open(place.base / "beside" / "set.txt").read() == "beside"

    in_child(work)


def test_temporary_files_caches_and_allowed_folders_are_let_be(place: Place) -> None:
    store = place.lower.parent / "store"

    def work() -> None:
        place.enter(allowed=(store,))
        with tempfile.NamedTemporaryFile("w") as file:
            assert os.path.dirname(file.name) == str(place.base / "tmp")
        with tempfile.TemporaryDirectory() as folder:
            writes(os.path.join(folder, "x"))
        os.makedirs(store / "objects")
        writes(store / "objects" / "x")
        writes(os.devnull)
        os.makedirs(place.base / "beside" / "__pycache__")
        os.rmdir(place.base / "beside" / "__pycache__")

    in_child(work)
    assert (store / "objects" / "x").read_text() == "new"


def test_a_store_in_the_working_directory_is_allowed_and_the_overlay_may_lie_in_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "store" / "arms").mkdir(parents=True)
    (tmp_path / "log.txt").write_text("old")

    def work() -> None:
        tempfile.tempdir = str(tmp_path)  # the longest folder rules: these are not temporary files
        Overlay(tmp_path, tmp_path / "store" / "arms" / "a", (tmp_path / "store",)).enter()
        writes(tmp_path / "store" / "x")
        writes("store/y")
        writes(tmp_path / "log.txt")
        writes(tmp_path / "new.txt")
        assert sum(1 for _ in os.walk(".")) == 1
        detach_overlay(tmp_path / "store" / "arms" / "b")
        writes(tmp_path / "store" / "arms" / "a" / "log.txt", "b's")
        assert Path("log.txt").read_text() == "b's"

    in_child(work)
    assert (tmp_path / "log.txt").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["log.txt", "store"]
    assert sorted(os.listdir(tmp_path / "store")) == ["arms", "x", "y"]
    assert (tmp_path / "store" / "arms" / "a" / "log.txt").read_text() == "new"


def test_an_overlay_in_the_folder_it_shows_does_not_show_itself(tmp_path: Path) -> None:
    (tmp_path / "arms").mkdir()
    (tmp_path / "log.txt").write_text("old")

    def work() -> None:
        Overlay(tmp_path, tmp_path / "arms" / "a").enter()
        writes("arms/x")
        assert os.listdir("arms") == ["x"]
        assert [folder for folder, _, _ in os.walk(".")] == [".", "./arms"]

    in_child(work)
    assert os.listdir(tmp_path / "arms") == ["a"]


def test_walks_see_what_they_saw_before(place: Place) -> None:
    def seen(top: Path | str) -> list[str]:
        walked = [os.path.join(folder, f) for folder, _, files in os.walk(top) for f in files]
        globbed = [str(p) for p in Path(top).rglob("*") if p.is_file()]
        globbed_too = [str(p) for p in Path(top).glob("**/*") if p.is_file()]
        return sorted(os.path.relpath(p, top) for p in [*walked, *globbed, *globbed_too])

    before = seen(place.lower)

    def work() -> None:
        place.enter()
        assert seen(".") == before
        assert seen(place.lower) == before

    def works_late() -> None:
        place.enter("late")
        appends("data/a/cache", "")  # `data` and `a` become real folders, `deep` is a link
        os.remove("data/a/cache")
        assert seen("data") == ["a/deep/x.csv"] * 3

    in_child(work)
    in_child(works_late)


def test_a_database_is_copied_up(place: Place) -> None:
    with sqlite3.connect(place.lower / "runs" / "db") as there:
        there.execute("create table t (x)")
    there.close()
    before = digest(place.lower)

    def work() -> None:
        place.enter()
        with sqlite3.connect("runs/db") as here:
            here.execute("insert into t values (1)")
        here.close()
        assert not os.path.islink("runs/db")

    in_child(work)
    assert digest(place.lower) == before
    (place.lower / "runs" / "db").unlink()


def twins(place: Place, *works: Callable[[], object]) -> None:
    """Forks one child after another, each with an overlay `0`, `1`, … of its own."""
    flush_all()
    for number, work in enumerate(works):

        def twin(number: int = number, work: Callable[[], object] = work) -> None:
            detach_overlay(place.base / "arms" / f"{Path.cwd().name}.{number}")
            work()
            flush_all()

        in_child(twin)


def test_two_twins_keep_apart(place: Place) -> None:
    def first() -> None:
        writes("log.txt", "first")
        writes("runs/new.txt", "first")
        os.remove("runs/two.txt")
        writes(made, "first")

    def second() -> None:
        assert Path("log.txt").read_text() == "before\n"
        assert Path("shared.txt").read_text() == "past"
        assert sorted(os.listdir("runs")) == ["old", "one.txt", "past.txt", "two.txt"]
        appends("shared.txt", ", second")
        appends(made, ", second")  # an absolute path that was worked out before the fork
        os.chdir("runs")
        appends("past.txt", ", second")

    made = ""

    def work() -> None:
        nonlocal made
        place.enter()
        writes("shared.txt", "past")
        writes("runs/past.txt", "past")
        made = os.path.abspath("made.txt")
        writes(made, "past")
        kept = digest(place.base / "arms" / "own")
        twins(place, first, second)
        assert digest(place.base / "arms" / "own") == kept

    in_child(work)
    first_own, second_own = place.base / "arms" / "own.0", place.base / "arms" / "own.1"
    assert (first_own / "log.txt").read_text() == "first"
    assert (first_own / "made.txt").read_text() == "first"
    assert (second_own / "made.txt").read_text() == "past, second"
    assert (second_own / "shared.txt").read_text() == "past, second"
    assert (second_own / "runs" / "past.txt").read_text() == "past, second"
    assert (second_own / "runs" / "two.txt").read_text() == "two"


def test_a_twin_starts_in_the_folder_it_was_forked_in(place: Place) -> None:
    def work() -> None:
        place.enter()
        os.chdir("runs")
        flush_all()

        def twin() -> None:
            detach_overlay(place.base / "twin")
            writes("one.txt")
            assert os.getcwd() == os.path.realpath(place.base / "twin" / "runs")

        in_child(twin)

    in_child(work)


def test_an_open_log_goes_on_in_each_twin_with_the_past_once(place: Place) -> None:
    def work() -> None:
        place.enter()
        log = open("runs/train.log", "w")
        binary = open("steps.bin", "wb")
        late = open("log.txt", "a")
        reader = open("runs/one.txt", "rb", buffering=0)
        reader.read(1)
        log.write("past\n")
        binary.write(b"past ")
        late.write("past\n")

        def goes_on(name: str) -> None:
            log.write(f"{name}\n")
            binary.write(name.encode())
            late.write(f"{name}\n")
            assert fcntl.fcntl(late.fileno(), fcntl.F_GETFL) & os.O_APPEND
            assert reader.read() == b"ne"  # its own place in the file

        twins(place, lambda: goes_on("first"), lambda: goes_on("second"))
        assert Path("runs/train.log").read_text() == "past\n"
        assert not os.get_inheritable(log.fileno())
        log.write("the parent\n")
        log.flush()
        assert Path("runs/train.log").read_text() == "past\nthe parent\n"

    in_child(work)
    for number, name in enumerate(["first", "second"]):
        own = place.base / "arms" / f"own.{number}"
        assert (own / "runs" / "train.log").read_text() == f"past\n{name}\n"
        assert (own / "steps.bin").read_text() == f"past {name}"
        assert (own / "log.txt").read_text() == f"before\npast\n{name}\n"


def test_nested_forks(place: Place) -> None:
    def work() -> None:
        place.enter()
        log = open("runs/train.log", "w")
        log.write("root ")
        twins(place, lambda: child(log))

    def child(log: io.TextIOBase) -> None:
        log.write("child ")
        writes("runs/one.txt", "child")
        os.remove("log.txt")
        twins(place, lambda: grandchild(log, "a"), lambda: grandchild(log, "b"))

    def grandchild(log: io.TextIOBase, name: str) -> None:
        log.write(name)
        assert not os.path.lexists("log.txt")
        assert Path("runs/one.txt").read_text() == "child"
        assert Path("data/a/deep/x.csv").read_text() == "1,2"
        assert open(place.lower / "runs" / "one.txt").read() == "child"
        assert open(place.base / "arms" / "own" / "runs" / "one.txt").read() == "child"
        assert open("../beside/set.txt").read() == "beside"
        appends(str(place.lower / "runs" / "one.txt"), f" {name}")
        appends("latest", "!")

    in_child(work)
    assert (place.base / "arms" / "own.0" / "runs" / "train.log").read_text() == "root child "
    assert (place.base / "arms" / "own.0" / "runs" / "one.txt").read_text() == "child"
    for number, name in enumerate("ab"):
        own = place.base / "arms" / f"own.0.{number}"
        assert (own / "runs" / "train.log").read_text() == f"root child {name}"
        assert (own / "runs" / "one.txt").read_text() == f"child {name}!"


def test_output_that_was_redirected_to_a_file_parts_too(place: Place) -> None:
    def work() -> None:
        place.enter()
        (place.base / "tmp" / "said").mkdir()
        out = os.open(place.base / "tmp" / "said" / "out", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
        os.write(2, b"warned ")
        print("past", end=" ")
        flush_all()
        for name in ("a", "b"):

            def twin(name: str = name) -> None:
                detach_overlay(
                    place.base / name, {place.base / "tmp" / "said": place.base / name / "said"}
                )
                print(name, end=" ", flush=True)
                os.write(2, b"warned again ")  # one place in the file for both, as before
                print("done", end="", flush=True)
                assert os.get_inheritable(1)
                assert os.get_inheritable(2)

            in_child(twin)

    in_child(work)
    assert (place.base / "tmp" / "said" / "out").read_text() == "warned past "
    for name in ("a", "b"):
        assert (place.base / name / "said" / "out").read_text() == (
            f"warned past {name} warned again done"
        )


def test_flushing_never_raises(place: Place) -> None:
    def work() -> None:
        place.enter()
        closed = open("closed", "w")
        closed.close()
        detached = open("detached", "w")
        raw = detached.detach()
        held = open("held", "wb")
        held.write(b"x")
        with gzip.open("packed", "wt") as packed:
            packed.write("x")
            flush_all()
        assert Path("held").read_bytes() == b"x"
        held.close()
        raw.close()

    in_child(work)


def test_outside_an_overlay_nothing_is_wrapped() -> None:
    code = (
        "import bygones.attach.isolation.overlay, sys, io; assert open is io.open; "
        "print('torch' in sys.modules)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout == "False\n"
    assert type(builtins.open).__name__ == "builtin_function_or_method"
