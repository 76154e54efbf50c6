"""Faults: kill, fill the disk, and flip bytes, over every command that writes; count what was lost or let in.

    .venv/bin/python benchmarks/faults.py               # about half an hour on two cores
    .venv/bin/python benchmarks/faults.py --every 9     # every ninth event and byte: a few minutes
    .venv/bin/python benchmarks/faults.py ledger bundle # these commands alone

Prints the table of docs/reliability.md. The exit code is 1 if anything was lost, different, or unsaid.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tests.helpers.file_faults import Ended, Fault, run_with  # noqa: E402
from tests.helpers.study_text import small_study  # noqa: E402

from bygones.cli.app import main as cli_main  # noqa: E402
from bygones.core.errors import BygonesError, LedgerError  # noqa: E402
from bygones.publish.bundle import verify_bundle  # noqa: E402
from bygones.publish.bundle.archive import files_of  # noqa: E402
from bygones.store.ledger import read_ledger  # noqa: E402

STUDY = small_study(horizons=(0, 3), seeds=3)
COMMANDS: dict[str, list[str]] = {
    "run": ["run", "study.py", "--store", "new", "--workers", "1", "--lanes", "1"],
    "report": ["report", "store", "--out", "new"],
    "bundle": ["bundle", "write", "store", "--out", "new", "--no-report", "--date", "2026-01-31"],
    "zip": ["bundle", "write", "store", "--out", "new.zip", "--no-report", "--date", "2026-01-31"],
    "ledger": [
        "ledger",
        "write",
        "study.py:recipe",
        "--until",
        "40",
        "--every",
        "5",
        "--out",
        "new",
    ],
    "compare": ["compare", "store", "other", "--out", "new"],
}
Files = dict[str, bytes]


class Harness:
    """A folder with what the commands need, what each writes when nothing goes wrong, and the counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts, self.wrong = folder, Counter[tuple[str, str]](), list[str]()
        self.first = folder / "first"
        self.first.mkdir()
        (self.first / "study.py").write_text(STUDY)
        gone = folder / "gone"
        gone.mkdir()
        (gone / "study.py").write_text(STUDY)
        (gone / "other.py").write_text(STUDY.replace("lr=0.1", "lr=0.2"))
        for name, store in (("study.py", "store"), ("other.py", "other")):
            made = ["run", name, "--store", f"../first/{store}", "--workers", "1", "--lanes", "1"]
            assert run_with("none", 0, gone, made).code == 0
        shutil.rmtree(
            gone
        )  # so bundles are written without code, which takes a Python of its own to check
        self.whole: dict[str, Files] = {}
        for command in COMMANDS.values():
            import_what_it_imports(self.new(), command)

    def new(self) -> Path:
        """Return a new copy of the folder that commands are run in."""
        shutil.rmtree(self.folder / "now", ignore_errors=True)
        return Path(shutil.copytree(self.first, self.folder / "now" / "here"))

    def expected(self, name: str) -> tuple[Files, int]:
        here = self.new()
        ended = run_with("none", 0, here, COMMANDS[name])
        assert ended.code == 0, ended.err
        self.whole[name] = written(here)
        return self.whole[name], ended.events

    def check(self, name: str, fault: str, here: Path, ended: Ended) -> None:
        """Check what a command that met a fault has left; run again, it has to come to the same bits."""
        self.counts[name, fault] += 1
        if sum(self.counts.values()) % 50 == 0:
            print(f"{sum(self.counts.values())} faults so far.", file=sys.stderr, flush=True)
        if fault != "kill" and (ended.code in (70, 99) or "Traceback" in ended.err):
            self.note(name, fault, f"no sentence: {ended.err[-300:]}")
        if fault not in ("kill", "random") and ended.code != 0 and not ended.err.strip():
            self.note(name, fault, "nothing said")
        lost = what_is_wrong(name, written(here), self.whole[name])
        if lost:
            self.note(name, fault, lost)
        if name == "ledger":  # never written over: another name, after a fault
            (here / "new").unlink(missing_ok=True)
        again = run_with("none", 0, here, COMMANDS[name])
        if name in ("bundle", "zip") and again.code == 2 and "already" in again.err:
            again = Ended(0, "", 0)  # it was killed after its last event
        if again.code != 0 or written(here) != self.whole[name]:
            self.note(name, fault, f"another result when run again: {again.err[-300:]}")
        leftovers = [path.name for path in here.glob(".bygones-*")]
        if leftovers:
            self.note(name, fault, f"left over: {leftovers}")

    def note(self, name: str, fault: str, what: str) -> None:
        self.wrong.append(f"{name}, {fault}: {what}")
        print("WRONG", self.wrong[-1], flush=True)


def import_what_it_imports(here: Path, command: list[str]) -> None:
    """Import what a command imports, so that its runs, which are forks of this process, need not."""
    names = here.parent / "modules"
    if os.fork() == 0:
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        os.chdir(here)
        sys.argv = ["bygones", *command]
        with suppress(SystemExit):
            cli_main()
        names.write_text("\n".join(sys.modules))
        os._exit(0)
    os.wait()
    for name in names.read_text().splitlines():
        if not name.startswith("bygones_study_"):
            with suppress(Exception):
                importlib.import_module(name)


def written(here: Path) -> Files:
    """Return the bytes of all that a command wrote, but for what depends on the process or is unfinished."""
    found: Files = {}
    for path in sorted([*here.glob("new*"), *here.glob("new*/**/*")]):
        name = path.relative_to(here).as_posix()
        if path.is_file() and not name.startswith(("new/lock", "new/partial", "new/records")):
            found[name] = path.read_bytes()
        elif path.is_file() and "/records/" in f"/{name}":
            found[name] = b""  # a record holds times: whole or not is seen when it is read
    return found


def what_is_wrong(name: str, left: Files, whole: Files) -> str:
    """Say what is lost or half written; "" if all that is there is whole."""
    if name == "ledger":
        content, full = left.get("new", b""), whole["new"]
        cut = content[
            : content.rfind(b"\n") + 1
        ]  # a line that was cut short is told so by its reader
        return "" if full.startswith(cut) else "the ledger has lines of another"
    if name == "bundle":
        return "" if not left or left == whole else "half a bundle in its place"
    odd = [path for path, content in left.items() if whole.get(path) != content]
    return f"not whole, or another: {odd[:3]}" if odd else ""


def at_events(harness: Harness, name: str, fault: Fault, every: int) -> None:
    _, total = harness.expected(name)
    for at in range(1, total + 1, every):
        here = harness.new()
        harness.check(name, fault, here, run_with(fault, at, here, COMMANDS[name]))


def at_sizes(harness: Harness, name: str, every: int) -> None:
    """No file may grow above a size: writes fail in their middle, as on a disk that fills."""
    whole, _ = harness.expected(name)
    sizes = sorted(
        {n for content in whole.values() for n in (1, len(content) // 2, len(content) - 1)}
    )
    for at in [size for size in sizes if size > 0][::every]:
        here = harness.new()
        harness.check(name, "limit", here, run_with("limit", at, here, COMMANDS[name]))


def at_random(harness: Harness, name: str, times: int) -> None:
    """Kill the command's group after a random time."""
    harness.expected(name)
    began = time.monotonic()
    run_with("none", 0, harness.new(), COMMANDS[name])
    length, rng = time.monotonic() - began, random.Random(0)
    for _ in range(times):
        here = harness.new()
        with killed_after(rng.uniform(0.0, length)):
            ended = run_with("none", 0, here, COMMANDS[name])
        harness.check(name, "random", here, ended)


@contextmanager
def killed_after(seconds: float) -> Iterator[None]:
    """Let another process kill the child of this one, and its group, after a time."""
    parent = os.getpid()
    killer = os.fork()
    if killer == 0:
        time.sleep(seconds)
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in map(int, children):
            if pid != os.getpid():
                with suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
        os._exit(0)
    try:
        yield
    finally:
        os.waitpid(killer, 0)


def flip_bytes(harness: Harness, every: int) -> None:
    """Flip each byte of a small bundle, as a folder: every flip has to be refused, with its place."""
    here = harness.new()
    assert run_with("none", 0, here, COMMANDS["bundle"]).code == 0
    folder, number = here / "new", 0
    verify_bundle(folder)
    for name in files_of(folder):
        whole = (folder / name).read_bytes()
        for place in range(len(whole)):
            number += 1
            if number % every:
                continue
            changed = bytearray(whole)
            changed[place] ^= 1 + place % 255
            (folder / name).write_bytes(changed)
            harness.counts["bundle", "flipped byte"] += 1
            try:
                verify_bundle(folder)
                harness.note("verify", "flip", f"{name}, byte {place}: not noticed")
            except BygonesError as error:
                if not str(error):
                    harness.note("verify", "flip", f"{name}, byte {place}: no sentence")
        (folder / name).write_bytes(whole)


def cut_ledger(harness: Harness, every: int) -> None:
    """Cut a ledger after each byte: what is read is a beginning of it, or refused."""
    harness.expected("ledger")
    whole, path = harness.whole["ledger"]["new"], harness.folder / "cut"
    for at in range(0, len(whole), every):
        path.write_bytes(whole[:at])
        harness.counts["ledger", "cut"] += 1
        with suppress(LedgerError):
            if read_ledger(path).complete:
                harness.note("ledger", "cut", f"{at} bytes pass for the whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--kills", type=int, default=30, help="at random moments, of each command")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        harness = Harness(Path(name))
        works: list[Callable[[], None]] = []
        for command in asked.commands:
            works += [
                lambda c=command: at_events(harness, c, "kill", asked.every),
                lambda c=command: at_events(harness, c, "full", asked.every),
                lambda c=command: at_sizes(harness, c, asked.every),
                lambda c=command: at_random(harness, c, asked.kills),
            ]
        if "bundle" in asked.commands:
            works.append(lambda: flip_bytes(harness, asked.every))
        if "ledger" in asked.commands:
            works.append(lambda: cut_ledger(harness, asked.every))
        for work in works:
            work()
    kinds = ["kill", "random", "full", "limit", "flipped byte", "cut"]
    print(f"| command | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for command in asked.commands:
        print(
            f"| `{command}` | {' | '.join(str(harness.counts[command, kind] or '–') for kind in kinds)} |"
        )
    print(f"{sum(harness.counts.values())} faults, {len(harness.wrong)} wrong.")
    sys.exit(bool(harness.wrong))


if __name__ == "__main__":
    main()
