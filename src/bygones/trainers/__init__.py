"""Trainers: treat and measure other libraries' trainers; one file imports each library.

`huggingface` is for transformers.Trainer, `lightning` for lightning.Trainer. They share `boundary_hooks`
(treat and observe one run), `measure` (a study of such runs) and `checkpoint_surgery` (rewrite a saved
checkpoint), which import neither library.
"""
