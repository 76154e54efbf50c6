"""Command line: parse arguments, call the rooms, print results."""
