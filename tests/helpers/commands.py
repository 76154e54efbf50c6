"""Commands of `bygones`, each run in a fork of one process that is warm: a start of its own costs seconds."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from bygones.attach.isolation.environment import ALONE, HASH_SEED_IS
from bygones.cli.aliases import replace_aliases
from bygones.cli.app import GROUPS, app, main

ALONE_HERE = {**os.environ, **ALONE}
# A fork copies the page tables of its parent; in large pages, where there are any, that takes half as long.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# How long Ray waits for its own processes, which is no measure of whether they work.
PATIENT_RAY = {
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
}


class Said(NamedTuple):
    code: int
    out: str
    err: str


Commands = Callable[..., Said]  # (folder, *arguments)


def start_server(*warmed: str, fixes_hashes: bool = True) -> subprocess.Popen[str]:
    """A process that runs scripts must be single-threaded, which a test runner is not.

    `warmed`: modules that it imports beforehand, if others than usual. `fixes_hashes`: whether the seed of
    string hashes is set as a user would: then a resumed run needs no Python of its own, which takes seconds.
    """
    command = [sys.executable, "-P", str(Path(__file__).parent / "script_server.py"), *warmed]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**ALONE_HERE, **LARGE_PAGES, **({HASH_SEED_IS: "the user's"} if fixes_hashes else {})},
        text=True,
    )


def ask(server: subprocess.Popen[str], folder: Path, *arguments: object) -> Said:
    words = [str(a) for a in arguments]
    return _checked(words, Said(*_answer(server, [words, str(folder)])))


def begin(
    server: subprocess.Popen[str], folder: Path, environment: dict[str, str], *arguments: object
) -> int:
    """Begins a command in a process group of its own, and gives its number."""
    return _answer(server, [[str(a) for a in arguments], str(folder), environment])


def end(server: subprocess.Popen[str], process: int) -> int:
    """The exit code of a command that was begun; waits for it."""
    return _answer(server, process)


def _answer(server: subprocess.Popen[str], request: object) -> Any:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> Said:
    """Runs a command in this process, as the command line would."""
    monkeypatch.setattr(sys, "argv", ["bygones", *map(str, arguments)])
    code = 0
    capsys.readouterr()
    try:
        main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    captured = capsys.readouterr()
    return _checked([str(a) for a in arguments], Said(code, captured.out, captured.err))


def _checked(arguments: list[str], said: Said) -> Said:
    """An error names no option that its command lacks, unless its traceback was asked for."""
    if said.code not in (0, 1) and "--debug" not in arguments:
        assert foreign_options(arguments, said.err) == set(), said.err
    return said


def foreign_options(arguments: list[str], sentence: str) -> set[str]:
    """The options in a sentence that the command lacks.

    Those in quoted commands, those that were given, and a script's own `--seed` do not count.
    """
    groups = {
        name: [str(c.name) for c in group.registered_commands] for name, group in GROUPS.items()
    }
    command: Any = typer.main.get_command(app)
    for word in replace_aliases(arguments, groups):
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    written = set(_OPTION.findall(" ".join(arguments)))
    named = set(_OPTION.findall(re.sub(r"`[^`]*`|--\w+ \{seed\}", "", sentence)))
    return named - known - written - {"--debug", "--help"}


_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def stop_server(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.stdout.close()
    server.wait(timeout=300)  # of what hangs
