"""How a script begins: unseeded generators are the same in every invocation, and not in a new Python."""

import random

import numpy as np
import pytest

from bygones.attach.isolation.environment import HASH_SEED
from bygones.attach.isolation.fork import run_in_fork
from bygones.attach.isolation.script import Script, run_script


@pytest.fixture
def draws(tmp_path):
    """Gives what an unseeded script draws from python's and numpy's generators, which lie anywhere before."""
    (tmp_path / "draw.py").write_text(
        "import random, sys, numpy as np\nsys.drawn = random.random(), np.random.rand()\n"
    )

    def run(seed: int, *arguments: str) -> tuple[float, float]:
        def begin() -> tuple[float, float]:
            import sys

            run_script(Script("draw.py", arguments), seed, tmp_path)
            return vars(sys)["drawn"]

        random.seed()
        np.random.seed()
        return run_in_fork(begin)

    return run


def test_unseeded_generators_are_the_same_each_time_and_of_every_seed(draws):
    first = draws(0, "{seed}")
    assert first == draws(0, "{seed}") == draws(1, "{seed}")
    assert draws(0) != draws(1)  # seeded by bygones
    assert draws(0) == draws(0)


def test_a_python_with_other_string_hashes_begins_elsewhere(draws, monkeypatch):
    monkeypatch.setenv(HASH_SEED, "0")
    first = draws(0, "{seed}")
    monkeypatch.setenv(HASH_SEED, "1")
    assert draws(0, "{seed}") != first
