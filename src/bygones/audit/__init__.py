"""Audits: what a script's checkpoint, evaluation or inventory misses."""
