"""Isolation: run a script in a forked process whose writes go to an overlay of the file system."""
