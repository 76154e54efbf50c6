"""Text of a small study, for commands that are interrupted or run into faults."""

_TEXT = """
import numpy as np, torch
from torch import nn
from bygones import Arm, Parts, Reset, Reshuffle, Study, Treatment, Window

def recipe(seed):
    rng = np.random.default_rng(7)
    x = torch.from_numpy(rng.standard_normal((30, 5), np.float32))
    y = torch.from_numpy(rng.integers(0, 3, 30))
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data, probe = (x[:24], y[:24]), (x[24:], y[24:])
    return Parts(model=model, optimizer=optimizer, data=data, order=Reshuffle(24, 4), probe_set=probe)

def study():
    reset = Arm("reset", Treatment("moments", Reset(), Window(4, 5)))
    return Study(recipe, [reset], fork_at=4, horizons={horizons}, seeds=range({seeds}), name="s")
"""


def small_study(horizons: tuple[int, ...], seeds: int) -> str:
    """Return the text of a file `study.py`: a linear model, forked at step 4, whose momentum is reset."""
    return _TEXT.format(horizons=horizons, seeds=seeds)
