"""One thread for every test, as the numeric contract of a study has it."""

import torch

torch.set_num_threads(1)
