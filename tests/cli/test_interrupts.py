"""Ctrl-C and SIGTERM at any moment, with two workers: a sentence, its exit code, nobody left.

From a cold start; `test_faults.py` has the quick tests, of warm processes.
"""

from __future__ import annotations

import random
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.interrupts import Interrupted, Started
from tests.helpers.study_text import small_study

EXAMPLES = Path(__file__).parents[2] / "examples"
STUDY = small_study(horizons=(0, 30), seeds=8)
COMMANDS = {
    "run": "run study.py --store store --workers 2 --lanes 1",
    "script": "run --store store --fork-at 8 --horizons 4 --seeds 0-3 --workers 2 -- ema.py --seed {seed}",
    "resume": "audit resume --resume '--resume last.pt' -- plain.py --seed {seed}",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TRIES = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.py").write_text(STUDY)
    shutil.copy(EXAMPLES / "scripts" / "torchs_ema.py", tmp_path / "ema.py")
    shutil.copy(EXAMPLES / "resuming" / "plain.py", tmp_path / "plain.py")
    return tmp_path


def start(folder: Path, name: str) -> Started:
    return Started(folder, shlex.split(COMMANDS[name]))


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a store that are finished: objects and records."""
    kept = [path for kind in ("objects", "records") for path in folder.glob(f"store/{kind}/*/*")]
    files = [file for path in kept for file in ([path] if path.is_file() else path.iterdir())]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def trains(started: Started) -> Callable[[], bool]:
    """Whether something is stored, and two workers have begun."""
    folder = started.said.parent
    return lambda: any(folder.glob("store/records/*/*/*-*.json"))


@pytest.mark.long
@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_two_workers_that_are_interrupted_at_work(sent: signal.Signals, folder: Path) -> None:
    started = start(folder, "run")
    started.until(trains(started))
    ended = started.send(sent)
    assert ended.what_is_wrong(sent) == ""
    assert contents(folder) != {}


@pytest.mark.long
@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_interrupted_at_random_moments(
    name: str, sent: signal.Signals, folder: Path
) -> None:
    """Within the time of a run that is not; what was stored before stays, and is gone on from."""
    began = time.monotonic()
    assert start(folder, name).process.wait() in (0, 1)
    whole, length = contents(folder), time.monotonic() - began
    rng = random.Random(f"{name} {sent}")
    for number in range(TRIES):
        if number % 5 == 0:
            shutil.rmtree(folder / "store", ignore_errors=True)
        before = contents(folder)
        started = start(folder, name)
        started.until(started.has_begun)
        time.sleep(rng.random() * length)
        ended = started.send(sent)
        assert ended.what_is_wrong(sent) == "", f"try {number}"
        assert before.items() <= contents(folder).items()
    assert start(folder, name).process.wait() in (0, 1)
    assert contents(folder).keys() == whole.keys()


def test_an_end_that_is_not_as_promised_is_noticed() -> None:
    said = "bygones: stopped. What is finished is stored; run the same command again to go on.\n"
    good = Interrupted(130, f"s: 10% done.\n{said}", [])
    assert good.what_is_wrong(signal.SIGINT) == ""
    assert Interrupted(0, "", []).what_is_wrong(signal.SIGINT) == ""
    for wrong in (
        Interrupted(130, said, ["sleep 600"]),
        Interrupted(-2, said, []),
        Interrupted(130, "", []),
        Interrupted(130, f"{said}Traceback (most recent call last):\n", []),
        Interrupted(130, "s: 10% done.\n", []),
        Interrupted(143, said, []),
    ):
        assert wrong.what_is_wrong(signal.SIGINT) != ""
