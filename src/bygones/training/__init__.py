"""Training: a run that can be stopped, copied and rewritten at any step boundary."""
