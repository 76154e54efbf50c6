"""`python -m bygones` is `bygones`."""

from bygones.cli import main

main()
