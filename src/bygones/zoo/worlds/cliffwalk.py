"""Blind Cliffwalk: replay where one transition of 2^(n+1) - 2 is rewarded, with exact values and waits.

n states in a row. The right action leads on, and from the last state to the end with reward 1; the wrong one
ends the episode with reward 0. The replay memory holds each of the 2^n sequences of actions, carried out
until its episode ends: N = 2^(n+1) - 2 transitions. Q-learning on a table that begins at 0:

    delta = r + gamma·max Q(s', ·) - Q(s, a);   Q(s, a) <- Q(s, a) + lr·delta        gamma = 1 - 1/n

    Q*(s, right) = gamma^(n - 1 - s),   Q*(s, wrong) = 0                  s = 0 … n - 1
    mean number of updates until the rewarded transition is drawn:
        uniform        N                 a geometric law of 1/N
        prioritized    (N + 1)/2         alpha = 1: each new transition once, as their errors are 0 till then

So prioritized replay halves the first wait, and from then on goes back along the row by itself, where
uniform replay waits for N/2, N/4, … updates. (N + 1)/2 is for priorities |delta| + epsilon with
epsilon -> 0. Schaul et al. 2016 (arXiv:1511.05952), section 3.1 and figure 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bygones.core.values import Lifetime
from bygones.training.orders import Sequential
from bygones.training.recipe import Batch, Memory, Parts
from bygones.zoo.prioritized_replay import SumTree, sample

EPSILON = 1e-6  # the priority of a transition whose error is 0


class Table(nn.Module):
    """Action values, float64 [n, 2], that begin at 0; the output for states [N] is their rows [N, 2]."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(states, 2, dtype=torch.float64))

    def forward(self, states: Tensor) -> Tensor:
        return self.values[states]


def recipe(seed: int, states: int = 6, alpha: float = 1.0, lr: float = 0.25) -> Parts:
    """Build the table, SGD on it, and the priorities of the N transitions, one of which is replayed a step.

    `states`: n. `alpha`: exponent of the priorities; 0 for uniform replay. `lr`: learning rate. Without
    importance weights, which a world without chance does not need.
    """
    model, tree = Table(states), SumTree(num_transitions(states))
    tree.update(np.arange(tree.size), np.ones(tree.size))
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        data=(torch.zeros(1),),
        order=Sequential(num_examples=1, batch_size=1),
        train_step=_Replay(states, alpha),
        others={
            "priorities": Memory(tree, lifetime=Lifetime("unbounded")),
            "replay draws": np.random.default_rng(int(torch.randint(2**31, (1,)))),
        },
        probe_set=(torch.arange(states), torch.zeros(states, dtype=torch.int64)),
    )


class _Replay:
    """The training step: draw a transition, one update of its value, and its new priority."""

    def __init__(self, states: int, alpha: float) -> None:
        self.states, self.alpha = states, alpha
        self.transitions = transitions(states)

    def __call__(self, parts: Parts, batch: Batch) -> Tensor:
        tree = parts.others["priorities"].value
        place = sample(tree, 1, parts.others["replay draws"])
        state, right = (int(one) for one in self.transitions[place[0]])
        values = parts.model.values
        assert isinstance(values, Tensor)
        target = 0.0
        if right:
            last = state == self.states - 1
            target = 1.0 if last else (1 - 1 / self.states) * values[state + 1].max().item()
        delta = target - values[state, right]
        loss = 0.5 * delta**2
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        tree.update(place, np.array([(abs(delta.item()) + EPSILON) ** self.alpha]))
        return loss


def num_transitions(states: int) -> int:
    """Return N.

    >>> num_transitions(3)
    14
    """
    return 2 ** (states + 1) - 2


def transitions(states: int) -> np.ndarray:
    """List the transitions, int64 [N, 2]: state and action, 1 for the right one. The last is rewarded.

    A state s is reached by 2^(n - s) sequences, and half of them take the right action.

    >>> transitions(2).tolist()
    [[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [1, 1]]
    """
    rows = [
        (state, action)
        for state in range(states)
        for action in (0, 1)
        for _ in range(2 ** (states - state - 1))
    ]
    return np.array(rows, dtype=np.int64)


def true_values(states: int) -> np.ndarray:
    """Return Q*, float64 [n, 2].

    >>> true_values(2).tolist()
    [[0.0, 0.5], [0.0, 1.0]]
    """
    right = (1 - 1 / states) ** np.arange(states - 1, -1, -1)
    return np.stack([np.zeros(states), right], axis=1)


def mean_wait(states: int, prioritized: bool) -> float:
    """Return the mean number of updates until the rewarded transition is drawn for the first time.

    >>> mean_wait(3, prioritized=False), mean_wait(3, prioritized=True)
    (14.0, 7.5)
    """
    count = num_transitions(states)
    return (count + 1) / 2 if prioritized else float(count)
