"""transformers.Trainer on a small GPT-2 that learns to write Python, letter by letter; nothing is fetched.

    python huggingface_trainer.py                    # trains, and keeps trainer/checkpoint-N
    python huggingface_trainer.py --resume           # continues from the newest of them

Dropout, AdamW, a linear schedule, a checkpoint every ten steps. Audit of the checkpoint:

    bygones audit resume --at 20 --resume=--resume -- huggingface_trainer.py --seed {seed}
"""

import argparse
import inspect
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--examples", type=int, default=384)
parser.add_argument("--save-steps", type=int, default=10)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()
set_seed(options.seed)

letters = torch.tensor(list(inspect.getsource(argparse).encode("ascii")))
lines = letters[: len(letters) // 32 * 32].reshape(-1, 32)
learned = [{"input_ids": line, "labels": line} for line in lines[: options.examples]]

config = GPT2Config(vocab_size=128, n_positions=32, n_embd=32, n_layer=2, n_head=2)
config.bos_token_id = config.eos_token_id = 0
arguments = TrainingArguments(
    output_dir="trainer",
    seed=options.seed,
    num_train_epochs=options.epochs,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=options.accumulate,
    learning_rate=3e-3,
    lr_scheduler_type="linear",
    warmup_steps=5,
    save_steps=options.save_steps,
    logging_steps=10,
    use_cpu=True,
    report_to=[],
)
trainer = Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=learned)
trainer.train(resume_from_checkpoint=options.resume)
