"""`python -m bygones` is `bygones`."""

from bygones.cli.app import main

main()
