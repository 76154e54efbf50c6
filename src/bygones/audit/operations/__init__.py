"""First differing operation: which torch operation of a training step is the first whose result differs."""
