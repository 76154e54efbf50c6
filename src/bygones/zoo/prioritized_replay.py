"""Proportional prioritized experience replay: a sum-tree of priorities, and sampling from it.

    P(i) = p_i^alpha / sum over j of p_j^alpha          probability of transition i
    w_i  = (p_i^alpha / least p_j^alpha)^-beta          its importance weight, (N·P(i))^-beta over the largest

alpha: 0 is uniform replay, with all weights 1. beta: 1 corrects the bias of the sampling in full.
Schaul et al. 2016 (arXiv:1511.05952), sections 3.3 and 3.4, and appendix B.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class SumTree:
    """A binary tree of sums over `size` leaves, for sampling in proportion to them in log2(size) steps.

    node = left child + right child;   leaves[i] = p_i^alpha, 0 for a place that holds nothing

    Every node is the sum of its children and never a sum of differences, so the leaves decide the tree to
    the bit, and they are its state.

    >>> tree = SumTree(4)
    >>> tree.update(np.array([0, 2]), np.array([1.0, 3.0]))
    >>> tree.total, tree.find(np.array([0.5, 1.0, 3.9])).tolist()
    (4.0, [0, 2, 2])
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._width = 1 << max(0, size - 1).bit_length()  # leaves of a full tree
        self._nodes = np.zeros(2 * self._width)  # the root at 1, the leaves from _width on

    @property
    def leaves(self) -> np.ndarray:
        """The leaves, float64 [size]; a view, to be read."""
        return self._nodes[self._width : self._width + self.size]

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(self._nodes[1])

    def update(self, places: np.ndarray, values: np.ndarray) -> None:
        """Set leaves int64 [B] to values [B], 0 or more; of a place that comes twice, the last counts."""
        nodes = places + self._width
        self._nodes[nodes] = values
        while nodes[0] > 1:
            nodes = np.unique(nodes >> 1)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, sums: np.ndarray) -> np.ndarray:
        """Return the places [B] where the running sum of leaves passes `sums`, each in [0, total)."""
        nodes, rest = np.ones(len(sums), dtype=np.int64), sums.astype(np.float64)
        while nodes[0] < self._width:
            left = self._nodes[2 * nodes]
            # A right child of 0 is never entered, whatever rounding says: nothing lies there.
            right = (rest >= left) & (self._nodes[2 * nodes + 1] > 0)
            rest = np.where(right, rest - left, rest)
            nodes = 2 * nodes + right
        return nodes - self._width

    def state_dict(self) -> dict[str, Any]:
        return {"leaves": self.leaves.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._nodes[:] = 0.0
        self.leaves[:] = state["leaves"]
        nodes = np.arange(self._width, 2 * self._width)
        while len(nodes) > 1:
            nodes = nodes[::2] >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]


def sample(tree: SumTree, count: int, draws: np.random.Generator) -> np.ndarray:
    """Draw places int64 [count], one from each of `count` equal parts of the sum, with probability P(i).

    So each draw of the batch has another law, and their mean over the batch is P.
    """
    sums = (np.arange(count) + draws.random(count)) * (tree.total / count)
    return tree.find(np.minimum(sums, np.nextafter(tree.total, 0.0)))


def probabilities(tree: SumTree) -> np.ndarray:
    """Return P, float64 [size]: leaves over their sum."""
    return tree.leaves / tree.leaves.sum()


def importance_weights(tree: SumTree, places: np.ndarray, beta: float) -> np.ndarray:
    """Return w of these places, float64 [B], at most 1: of the least likely transition it is 1."""
    leaves = tree.leaves
    return (leaves[places] / leaves[leaves > 0].min()) ** -beta
