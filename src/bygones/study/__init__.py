"""Studies: what is compared, and training exactly what is still missing of it."""
