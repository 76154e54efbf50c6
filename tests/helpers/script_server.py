"""Runs `bygones` commands for the tests, each in a fork of one process that has torch loaded already.

One request a line; one answer a line:

    run    [arguments, folder]               [exit code, out, err]
    begin  [arguments, folder, environment]  its process, which leads a group of its own: not waited for,
                                             and what it says goes to `out` and `err` in the folder
    end    process                           its exit code, once it is gone

A process that runs scripts must be single-threaded, which a test runner is not.
"""

import json
import os
import signal
import sys
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from bygones.attach.isolation.fork import scratch_folder
from bygones.attach.isolation.warmup import warm
from bygones.cli.app import main
from bygones.core.code_digest import SCRIPTS, installed_packages, package_digest


def run(arguments: list[str], folder: str) -> list[object]:
    with scratch_folder() as place:
        pid = os.fork()
        if pid == 0:
            code = command(arguments, folder, place)
            sys.stdout.flush()
            os._exit(code)
        return [end(pid), *((place / name).read_text() for name in ("out", "err"))]


def begin(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.environ.update(environment)
    # Whoever runs the tests in the background may have Ctrl-C ignored, which commands would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(command(arguments, folder, Path(folder)))  # as Python ends: that is looked at too


def run_refused() -> None:
    """A command that comes to nothing, here: to read its arguments alone loads sixty modules."""
    sys.argv = ["bygones", "check-resume", "--at", "1", "--resume=", "--json", "--", "no script"]
    with suppress(SystemExit), redirect_stderr(StringIO()):
        main()


def end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def command(arguments: list[str], folder: str, place: Path) -> int:
    """In a fork: what it says goes to files in `place`."""
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_CREAT | os.O_WRONLY), number)
    sys.argv = ["bygones", *arguments]
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def answer(request: Any) -> object:
    if isinstance(request, int):
        return end(request)
    return run(*request) if len(request) == 2 else begin(*request)


if __name__ == "__main__":
    # What the commands and the examples import, or what is asked for: here, and not in every fork again.
    audits = "transparency resume_check observers sufficiency".split()
    usual = ["scripts.measure", "scripts.record", *(f"audit.{name}" for name in audits)]
    modules = [
        "bygones.analysis.effects",
        "sklearn.datasets",
        *(f"bygones.{m}" for m in usual),
    ]
    asked = sys.argv[1:] or modules
    run_refused()
    warm(["bygones.cli.terminal", *asked])
    installed_packages()  # kept once asked for, as are the digests of bygones' own code
    package_digest()
    package_digest(SCRIPTS)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
