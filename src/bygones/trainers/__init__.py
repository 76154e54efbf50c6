"""Doors for other people's trainers: a library each, imported in one file each.

`huggingface` is for transformers.Trainer, `lightning` for lightning.Trainer. What they share knows
neither: `boundaries` (what is done in one run), `studying` (runs side by side), `surgery` (checkpoints).
"""
