"""Measure the effect of losing the optimizer's state at step 60 of a transformers.Trainer run.

A small GPT-2 learns to write Python, letter by letter. Needs `pip install 'bygones[huggingface]'`; nothing
is fetched. Prints the effects and writes trainer-report/report.html.
"""

import argparse
import inspect
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import bygones
from bygones import Arm, Reset, Scale, Treatment, Window
from bygones.trainers.huggingface import measure

letters = torch.tensor(list(inspect.getsource(argparse).encode("ascii")))
lines = letters[: len(letters) // 32 * 32].reshape(-1, 32)
held_out, learned = lines[:64], [{"input_ids": line, "labels": line} for line in lines[64:]]


def make_trainer(seed: int) -> Trainer:
    """A new model and a new Trainer: the same ones each time it is called with this seed."""
    config = GPT2Config(vocab_size=128, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    config.bos_token_id = config.eos_token_id = 0
    arguments = TrainingArguments(
        output_dir="trainer-output",
        seed=seed,
        max_steps=100,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
    )
    return Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=learned)


def probe(model: GPT2LMHeadModel) -> torch.Tensor:
    """Every letter's logits, given those before it: an input for each place in a line."""
    return model(held_out).logits[:, :-1]


if __name__ == "__main__":
    at = Window(60, 61)  # one boundary: after 60 optimizer steps
    arms = [
        Arm("lose AdamW's state", Treatment("moments", Reset(), at)),
        Arm("halve the moments", Treatment("moments", Scale(0.5), at)),
    ]
    outcomes = measure(
        make_trainer,
        arms,
        fork_at=60,
        horizons=(1, 5, 40),
        seeds=range(5),
        probe=probe,
        labels=held_out[:, 1:],
        name="GPT-2",
    )
    for effect in bygones.all_effects(outcomes):
        print(effect)
    print(bygones.write_report(outcomes, "trainer-report"))
