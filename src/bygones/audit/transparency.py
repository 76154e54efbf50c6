"""Transparency proof: hooks and forks leave what a script prints and writes unchanged.

Three runs of one seed go to the script's end: without any hooks, in a new process; watched; and as a twin,
forked at a boundary where every source is captured and restored. A process that cannot be forked becomes the
twin itself: it is run again from its start. What they print and every file that they write must be equal,
byte for byte.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bygones.attach.isolation.fork import Parent, scratch_folder
from bygones.attach.isolation.script import Script, check_script
from bygones.attach.isolation.warmup import warm, warm_for
from bygones.attach.watched_process import Ending, WatchedProcess, run_in_child
from bygones.core.first_difference import first_differing_index
from bygones.core.values import Digest, Window
from bygones.scripts.pilot import run_pilot
from bygones.training.interventions import Sham
from bygones.training.rewriter import Rewriter
from bygones.training.treatment import Treatment

_PRINTED = "what it printed"


@dataclass(frozen=True)
class Transparency:
    """The first difference of the watched run and of the twin from the bare run; empty if there is none.

    `printed`: SHA-256 of what the bare run printed. `why_not_fork`: why the twin was run from the start.
    `varying`: what differs in two bare runs too (a log with the time of day, say), and is left out.
    """

    script: str
    at: int
    lines: int
    files: int
    printed: Digest
    watched: str
    twin: str
    why_not_fork: str = ""
    varying: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.watched and not self.twin

    def __str__(self) -> str:
        if self.passed:
            return (
                f"{self.script} runs as it does without bygones: watched, and as a twin "
                f"{self._how_made()} at step {self.at}, it printed the same {self.lines} lines and wrote the "
                f"same {self.files} files, byte for byte.{self._what_varies()}"
            )
        differences = [
            f"{run}: {found}"
            for run, found in (("watched", self.watched), ("twin", self.twin))
            if found
        ]
        return (
            f"{self.script} does not run as it does without bygones. {' '.join(differences)}"
            f"{self._what_varies()}"
        )

    def _what_varies(self) -> str:
        if not self.varying:
            return ""
        return f" Left out, since two runs without bygones differ in it: {', '.join(self.varying)}."

    def _how_made(self) -> str:
        if not self.why_not_fork:
            return "forked"
        return (
            f"that was run from the start (it cannot be forked, since {self.why_not_fork.rstrip('.')}), with "
            f"all memory captured and restored"
        )


def check_transparency(script: Script, home: Path, seed: int, at: int) -> Transparency:
    """Run a script three times to its end and compare. Raises `ScriptError` if it ends before `at`."""
    check_script(script)
    warm()
    found = run_pilot(script, home, seed, at)
    script = found.script  # with the optimizer that closes a round
    warm_for(found.libraries)
    with scratch_folder() as folder:
        bare, watched, shared, twin = (folder / n for n in ("bare", "watched", "shared", "twin"))
        _run_bare(script, home, seed, bare)
        killed = f"{script} was killed (out of memory?)."
        run_in_child(
            lambda parent: ProofProcess(script, home, seed, watched, parent), killed=killed
        )
        run_in_child(
            lambda parent: ProofProcess(
                script, home, seed, shared, parent, at, twin, forks=found.why_not_fork is None
            ),
            killed=killed,
        )
        made = twin if found.why_not_fork is None else shared
        differing = {name for run in (watched, made) for name, _ in _differences(bare, run)}
        varying: tuple[str, ...] = ()
        if differing:
            again = folder / "again"
            _run_bare(script, home, seed, again)
            varying = tuple(name for name, _ in _differences(bare, again))
        return Transparency(
            script=str(script),
            at=at,
            lines=len((bare / "stdout.txt").read_bytes().splitlines()),
            files=len(_written(bare).keys() - set(varying)),
            printed=hashlib.sha256((bare / "stdout.txt").read_bytes()).hexdigest(),
            watched=_first_difference(bare, watched, varying),
            twin=_first_difference(bare, made, varying),
            why_not_fork=found.why_not_fork or "",
            varying=varying,
        )


def _run_bare(script: Script, home: Path, seed: int, folder: Path) -> None:
    folder.mkdir()
    given = [str(folder), str(seed), script.seed_env or "", script.path, *script.arguments]
    command = [sys.executable, "-P", "-m", "bygones.audit.bare_run", *given]
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        subprocess.run(command, cwd=home, stdout=out, stderr=err, stdin=subprocess.DEVNULL)


class ProofProcess(WatchedProcess):
    """Run a script to its end under watch; at the boundary `at`, fork a twin that does the same.

    In the twin every source is captured and restored; its output and files lie in the folder `twin`.
    Without `forks` this process itself is the twin.
    """

    def __init__(
        self,
        script: Script,
        home: Path,
        seed: int,
        folder: Path,
        parent: Parent,
        at: int | None = None,
        twin: Path | None = None,
        *,
        forks: bool = True,
    ) -> None:
        super().__init__(
            script,
            home,
            seed,
            folder,
            parent,
            allowed=(folder.parent,),
            emulates=at is not None and forks,
            stops=frozenset() if at is None else frozenset({at}),
        )
        self.at, self.twin, self.forks = at, twin, forks
        self.reached = at is None

    def at_boundary(self, step: int) -> None:
        assert self.twin is not None
        self.reached = True
        if self.forks:
            self.check_fork()
        live = self.find_live()
        twin = self.fork_arm(self.twin) if self.forks else None
        if twin is not None:
            self.parent.reply_and_exit(self.wait_for_arm(twin))
        shams = [Treatment(name, Sham(), Window(step, step + 1)) for name in live.sources]
        Rewriter(live.sources, self.seed).intervene(step, shams)

    def finish(self, ending: Ending) -> NoReturn:
        """Print what Python would print, run the exit handlers, and reply."""
        match ending.error:
            case SystemExit(code=str(message)):
                print(message, file=sys.stderr)
            case SystemExit() | None:
                pass
            case error:
                sys.excepthook(type(error), error, error.__traceback__)
        if not self.reached:
            where = f"step {self.at}, where it was to be forked"
            self.refuse(self.ended_early(ending, where))
        atexit._run_exitfuncs()
        self.parent.reply_and_exit("done")


def _written(folder: Path) -> dict[str, str]:
    """Return the digest of every file that a run wrote, by path; links to earlier files are left out."""
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder / "files"):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]
        for name in files:
            path = Path(place) / name
            if not path.is_symlink():
                relative = str(path.relative_to(folder / "files"))
                found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _first_difference(bare: Path, other: Path, varying: Collection[str]) -> str:
    """Say the first difference in what two runs printed or wrote; empty if there is none."""
    return next((said for name, said in _differences(bare, other) if name not in varying), "")


def _differences(bare: Path, other: Path) -> Iterator[tuple[str, str]]:
    """Yield what differs, as its name (a file, or "what it printed") and in a sentence."""
    one, two = ((folder / "stdout.txt").read_bytes().splitlines() for folder in (bare, other))
    number = first_differing_index(one, two)
    if number is not None:
        line, again = (lines[number].decode(errors="replace") for lines in (one, two))
        yield (
            _PRINTED,
            f"line {number + 1} of {_PRINTED} is {again!r}; without bygones it is {line!r}.",
        )
    elif len(one) != len(two):
        yield _PRINTED, f"it printed {len(two)} lines; without bygones {len(one)}."
    mine, theirs = _written(bare), _written(other)
    for path in sorted(mine.keys() | theirs.keys()):
        if mine.get(path) != theirs.get(path):
            yield path, f"the file {path} is not the same."
