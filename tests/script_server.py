"""Runs `bygones` commands for the tests, each in a fork of one process that has torch loaded already.

One request a line, `[[arguments…], folder]`; one answer a line, `[exit code, out, err]`. A process that runs
scripts must be single-threaded, which a test runner is not.
"""

import json
import os
import sys

from bygones.cli import main
from bygones.script.children import scratch_folder
from bygones.script.launch import warm


def answer(arguments: list[str], folder: str) -> list[object]:
    with scratch_folder() as place:
        pid = os.fork()
        if pid == 0:
            os.chdir(folder)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(place / name, os.O_CREAT | os.O_WRONLY), number)
            sys.argv = ["bygones", *arguments]
            code = 0
            try:
                main()
            except SystemExit as leaving:
                code = int(leaving.code or 0)
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        out, err = ((place / name).read_text() for name in ("out", "err"))
        return [os.waitstatus_to_exitcode(status), out, err]


if __name__ == "__main__":
    # What the commands and the examples import, or what is asked for: here, and not in every fork again.
    usual = "studying proving resuming observing sufficing recording".split()
    modules = ["bygones.effects", "sklearn.datasets", *(f"bygones.script.{m}" for m in usual)]
    warm(sys.argv[1:] or modules)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
