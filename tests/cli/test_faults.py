"""Whatever happens to a run or to its store, the numbers that come out are the right ones.

Training steps that wait from a given number of records on make room for a kill in the middle of things,
however fast or slow the machine is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import xarray as xr
from tests.helpers.commands import begin, end, run_here
from tests.helpers.study_recipes import small
from tests.study.test_measure import fresh, proven_once, same

__all__ = ["proven_once"]  # a fixture that acts on every test here too

from bygones.cli.load import load_study
from bygones.core.errors import StoreError
from bygones.publish.result import load
from bygones.store import FolderStore, MemoryStore
from bygones.store.outcomes import read_manifest, read_outcomes
from bygones.study.executors import Serial
from bygones.study.measure import measure

pytestmark = pytest.mark.xdist_group("faults")  # what they share is made once

SLOW_STUDY = '''
"""A study with a recipe, a probe and an intervention of its own, whose workers can be made to wait."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

sys.path.append(ROOT)

import numpy as np

from bygones import Arm, Hold, Reset, Study, Treatment, Window
from bygones.training.interventions.base import AbstractIntervention
from bygones.training.probes.base import AbstractProbe
from tests.helpers.study_recipes import plain


@dataclass(frozen=True)
class Flip(AbstractIntervention):
    def __call__(self, state, at):
        return {name: -leaf for name, leaf in state.items()}


@dataclass(frozen=True)
class WeightSums(AbstractProbe):
    kind: ClassVar[str] = "values"

    def __call__(self, parts):
        return np.array([[float(p.detach().sum()) for p in parts.model.parameters()]])


def must_wait():
    """Whether the store holds as many records as are wanted."""
    records = Path(os.environ["BYGONES_TEST_STORE"]).glob("records/*/*/*-*.json")
    return len(list(records)) >= int(os.environ["BYGONES_TEST_RECORDS"])


def slow(seed):
    parts = plain(seed)
    step = parts.train_step

    def wait(parts, batch):
        while os.environ.get("BYGONES_TEST_STORE") and must_wait():
            time.sleep(0.01)
        return step(parts, batch)

    parts.train_step = wait
    return parts


def study():
    arms = [
        Arm("reset", Treatment("moments", Reset(), Window(10, 11))),
        Arm("hold", Treatment("moments", Hold(), Window(10, 30))),
        Arm("flip", Treatment("weights", Flip(), Window(20, 21))),
        Arm("order", Treatment("order", Reset(), Window(15, 16))),
    ]
    return Study(slow, arms, fork_at=10, horizons=(0, 5, 30), seeds=range(3), name="slow", probe=WeightSums())
'''.replace("ROOT", repr(str(Path(__file__).parents[2])))


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "slow.py"
    path.write_text(SLOW_STUDY)
    return path


class Command:
    """A `bygones run` in a process group of its own, forked from a warm process.

    Once its store holds `records`, training steps wait, so it does not end by itself.
    """

    def __init__(
        self, server: subprocess.Popen[str], file: Path, store: Path, workers: int, records: int
    ) -> None:
        self.server, self.store, self.records = server, store, records
        self.folder = Path(mkdtemp(dir=file.parent))
        asked = ("run", file, "--store", store, "--workers", workers)
        waits = {"BYGONES_TEST_STORE": str(store), "BYGONES_TEST_RECORDS": str(records)}
        self.process = begin(server, self.folder, waits, *asked)

    def until(self, moment: Callable[[Command], bool]) -> None:
        _wait_until(lambda: self.process not in _alive() or moment(self))

    def send(self, what: signal.Signals, *, to_all: bool = True) -> tuple[int, str]:
        """Sends a signal to the group, or to its leader alone; its exit code, and what it said as errors."""
        (os.killpg if to_all else os.kill)(self.process, what)
        _wait_until(lambda: self.process not in _alive())
        return end(self.server, self.process), (self.folder / "err").read_text()

    def leaves_nobody(self) -> bool:
        """Waits until nothing of the group is alive; kills what is left of it if that takes for ever.

        A worker notices that its parent is gone once it has started, which takes long where much else runs.
        """
        try:
            _wait_until(lambda: self.process not in _alive().values())
        except AssertionError:
            os.killpg(self.process, signal.SIGKILL)
            return False
        return True


def _wait_until(met: Callable[[], bool], patience_s: float = 300.0) -> None:
    """Waits for a condition; the patience is for what hangs, and no measure of how fast something is."""
    late = time.monotonic() + patience_s
    while not met():
        assert time.monotonic() < late
        time.sleep(0.01)


def _alive() -> dict[int, int]:
    """The group of each process that is not a zombie waiting for whoever adopted it."""
    groups: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if state != "Z":
            groups[int(status.parent.name)] = int(group)
    return groups


def count_records(store: Path) -> int:
    return len(list(store.glob("records/*/*/*-*.json")))


def has_its_records(command: Command) -> bool:
    return count_records(command.store) >= command.records


def starts_workers(command: Command) -> bool:
    """Whether it trains, and has begun a process besides its own."""
    group = list(_alive().values()).count(command.process)
    return (command.store / "lock").exists() and group > 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> xr.Dataset:
    """The study from scratch, without a pause and in this process."""
    path = tmp_path_factory.mktemp("whole") / "slow.py"
    path.write_text(SLOW_STUDY)
    return measure(load_study(str(path)), MemoryStore(), Serial())


# ------------------------------------------------------------------ killed


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    server, file, whole, tmp_path
):
    """The study's probe and intervention are the file's own, so workers have to find them too.

    First the parent is killed alone, and its workers do not outlive it; then everything at once.
    """
    store = tmp_path / "store"
    for workers, number, to_all in ((2, 4, False), (1, 14, True)):
        command = Command(server, file, store, workers, number)
        command.until(has_its_records)
        code, said = command.send(signal.SIGKILL, to_all=to_all)
        assert code == -signal.SIGKILL, said
        assert command.leaves_nobody()
        assert count_records(store) >= number
        for path in store.glob("objects/*/*"):
            assert FolderStore(store).get(path.parent.name + path.name)
    study = load_study(str(file))
    assert same(measure(study, FolderStore(store)), whole)
    assert not list((store / "partial").iterdir())


def test_ctrl_c_and_sigterm_leave_one_sentence_and_no_process(server, file, whole, tmp_path):
    """While the workers start, and while they are at work; SIGTERM comes to the command alone."""
    store, sigint, sigterm = tmp_path / "store", signal.SIGINT, signal.SIGTERM
    for moment, workers, number, sent, expected, words in (
        (starts_workers, 2, 1, sigint, 130, "stopped"),
        (has_its_records, 1, 6, sigint, 130, "stopped"),
        (has_its_records, 2, 9, sigterm, 143, "ended by SIGTERM"),
    ):
        command = Command(server, file, store, workers, number)
        command.until(moment)
        code, said = command.send(sent, to_all=sent is sigint)
        assert code == expected, said
        assert "Traceback" not in said
        assert "KeyboardInterrupt" not in said
        last = said.strip().splitlines()[-1]
        go_on = "What is finished is stored; run the same command again to go on."
        assert last == f"bygones: {words}. {go_on}"
        assert command.leaves_nobody()
    assert same(measure(load_study(str(file)), FolderStore(store)), whole)


# ------------------------------------------------------------------ damage to what is stored

ARMS = ("several", "give")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    measure(small(ARMS), FolderStore(folder))
    return folder


def files_of(store: Path) -> dict[str, list[Path]]:
    """The files of a store, by what they are."""
    kinds: dict[str, list[Path]] = {"lock": [store / "lock"]}
    for path in sorted(store.glob("records/*/*/*.json")):
        record = json.loads(path.read_bytes())["record"]
        kind = {"built": "built", "certificate": "certificate", "small": "manifest"}
        kinds.setdefault(kind.get(path.stem, "record"), []).append(path)
        for name in ("observed", "snapshot"):
            if record.get(name):
                digest = record[name]
                kinds.setdefault(name, []).append(store / "objects" / digest[:2] / digest[2:])
    return kinds


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x11
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "first byte": lambda path: flip(path, 0.0),
    "half way": lambda path: flip(path, 0.5),
    "near the end": lambda path: flip(path, 0.9),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "another's": lambda path: path.write_bytes(b'{"digest": "", "record": {"start": 3}}'),
}
ALONE = [("one", kind) for kind in ("certificate", "manifest", "lock")]
MANY = [
    (which, kind)
    for which in ("one", "all")
    for kind in ("observed", "snapshot", "record", "built")
]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
@pytest.mark.parametrize(("which", "kind"), [*ALONE, *MANY])
def test_damage_is_never_a_wrong_number(which, kind, damage, filled, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(filled, folder)
    paths = list(dict.fromkeys(files_of(folder)[kind]))
    for path in paths if which == "all" else paths[len(paths) // 2 :][:1]:
        damage(path)
    store = FolderStore(folder)
    try:  # reading alone: the numbers, or a sentence
        assert same(read_outcomes(store, read_manifest(store)), fresh(small(ARMS)))
    except StoreError:
        pass
    longer = small(ARMS, horizons=(0, 1, 3, 7, 9))
    assert same(measure(longer, store), fresh(longer))
    assert same(measure(small(ARMS), store), fresh(small(ARMS)))


@pytest.mark.parametrize("damage", ["gone", "half way"])
def test_a_study_whose_records_are_missing_is_not_reported(
    damage, filled, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "store"
    shutil.copytree(filled, folder)
    path = files_of(folder)["record"][1]
    DAMAGE[damage](path)
    for command in (["report", folder, "--json"], ["bundle", "write", folder, "--no-report"]):
        said = run_here(monkeypatch, capsys, *command)
        assert said.code == 6
        assert (
            f"lacks 1 record of 'small' (missing or damaged), like {path.relative_to(folder)}"
            in (said.err)
        )
    measure(small(ARMS), FolderStore(folder))
    load(str(folder))


@pytest.mark.parametrize("seed", range(6))
def test_many_flips_all_over_the_store_are_never_a_wrong_number(seed, filled, tmp_path):
    rng = np.random.default_rng(seed)
    folder = tmp_path / "store"
    shutil.copytree(filled, folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if rng.random() < 0.4 and path.stat().st_size:
            flip(path, rng.random())
    longer = small(ARMS, horizons=(0, 1, 3, 6, 9), seeds=(0, 1, 2))
    assert same(measure(longer, FolderStore(folder)), fresh(longer))


def test_a_damaged_object_is_kept_aside_for_whoever_wants_to_look(filled, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(filled, folder)
    path = files_of(folder)["observed"][0]
    flip(path, 0.5)
    damaged = path.read_bytes()
    with pytest.raises(StoreError, match="SHA-256 differs from its name"):
        FolderStore(folder).get(path.parent.name + path.name)
    assert (folder / "damaged" / f"{path.parent.name}{path.name}").read_bytes() == damaged


# ------------------------------------------------------------------ nowhere to write


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            capture_output=True,
        )
    except OSError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip("mounting a small disk needs a privileged user")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kilobytes", [4, 24, 60, 120])
def test_a_full_disk_is_one_sentence_and_more_room_goes_on(kilobytes, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, f"{kilobytes}k"):
        with pytest.raises(StoreError, match=r"No space left on device.*make room") as caught:
            measure(small(ARMS), FolderStore(disk / "store"))
        assert "\n" not in str(caught.value)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert same(measure(small(ARMS), FolderStore(disk / "store")), fresh(small(ARMS)))


def test_a_file_in_the_place_of_the_store(tmp_path):
    place = tmp_path / "store"
    place.write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be made"):
        measure(small(ARMS), FolderStore(place))
    with pytest.raises(StoreError):
        measure(small(ARMS), FolderStore(place / "below"))
    assert place.read_text() == "not a folder"


@pytest.mark.parametrize("name", ["objects", "records", "partial", "lock"])
def test_something_else_in_the_place_of_a_part_of_the_store(name, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    if name == "lock":
        (folder / name).mkdir()
    else:
        (folder / name).write_text("in the way")
    with pytest.raises(StoreError, match=name):
        measure(small(ARMS), FolderStore(folder))


# ------------------------------------------------------------------ two at once


def test_two_runs_into_one_store_at_once(tmp_path):
    store = FolderStore(tmp_path)
    with (
        store.training(),
        pytest.raises(StoreError, match=f"process {os.getpid()}.*a store of its own"),
    ):
        measure(small(ARMS), FolderStore(tmp_path))
    assert same(measure(small(ARMS), store), fresh(small(ARMS)))


def test_the_store_is_free_again_after_an_error(tmp_path):
    store = FolderStore(tmp_path)
    with pytest.raises(RuntimeError), store.training():
        raise RuntimeError
    with store.training():
        pass


def test_reading_goes_on_while_another_trains(filled, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(filled, folder)
    store = FolderStore(folder)
    with store.training():
        assert same(read_outcomes(store, read_manifest(store)), fresh(small(ARMS)))
