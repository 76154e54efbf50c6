"""Bare run: run a script without any hooks, as the reference for its watched and forked runs.

    python -P -m bygones.audit.bare_run FOLDER SEED SEED_ENV SCRIPT ARGUMENTS…

Its working directory is an overlay, so that the script's own files are not written twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bygones.attach.isolation.overlay import Overlay, guarding_native_writes
from bygones.attach.isolation.script import Script, run_script


def main(arguments: list[str]) -> None:
    """Run the script of these command line arguments."""
    folder, seed, seed_env, path, *rest = arguments
    home = Path.cwd()
    script = Script(path, tuple(rest), seed_env or None)
    Overlay(home, Path(folder) / "files", allowed=(Path(folder),)).enter()
    with guarding_native_writes():
        run_script(script, int(seed), home)


if __name__ == "__main__":
    main(sys.argv[1:])
