"""Attaching to a training process that is not ours: run it alone, count its steps, find its memory."""
