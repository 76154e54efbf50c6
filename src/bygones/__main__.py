"""Entry point of `bygones` and of `python -m bygones`."""

from __future__ import annotations

import atexit
import sys

from bygones.attach.isolation.environment import begin_alone
from bygones.cli.process import leave, stop_at_once


def main() -> None:
    """Run the command line; begin anew first where it names a script, before anything slow is imported."""
    stop_at_once()
    if "--" in sys.argv:
        begin_alone()
    from bygones.cli.app import main as run

    try:
        run()
    except SystemExit as leaving:
        if leaving.code != 130:
            raise
        # Where Ctrl-C has come inside an `exec` of a text, Python itself would end by another code.
        atexit._run_exitfuncs()
        leave(130)


if __name__ == "__main__":
    main()
