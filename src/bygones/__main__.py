"""Entry point of `python -m bygones`, the same as `bygones`."""

from bygones.cli.app import main

main()
