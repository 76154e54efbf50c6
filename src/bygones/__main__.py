"""Entry point of `bygones` and of `python -m bygones`."""

from __future__ import annotations

import sys

from bygones.attach.isolation.environment import begin_alone


def main() -> None:
    """Run the command line; begin anew first where it names a script, before anything slow is imported."""
    if "--" in sys.argv:
        begin_alone()
    from bygones.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
