"""These scripts are run by tests, never imported by the collector (which looks for doctests)."""

collect_ignore_glob = ["*.py"]
