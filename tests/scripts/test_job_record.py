"""The ledger of a job: a chain for each rank and one over all, in which a difference has step and rank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import Commands, Said

from bygones.attach.isolation.script import Script
from bygones.core.errors import LedgerError, ScriptError
from bygones.scripts.job_record import JobRecorded, join_ledgers
from bygones.store.ledger import read_ledger, write_ledger
from bygones.store.ledger_diff import differing_fields, first_divergence

JOB = Script("train.py", processes=2)
TRAIN = """
import atexit
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
if rank == 0:
    atexit.register(print, "at the end")
for step in range(6):
    loss = model(torch.full((1, 2), 1.0 + rank)).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if rank == 1 and step == 3 and "flip" in sys.argv:
        model.module.weight.data.view(torch.int32)[0, 0] ^= 1
    if rank == 1 and step == 3 and "raise" in sys.argv:
        raise ValueError("no data left")
    if rank == 0:
        print(f"step {step}: {loss.item():.9g}", flush=True)
"""


def write_rank(path: Path, *steps: int, parts_at: int = 99) -> None:
    """A rank's ledger, whose weights are other ones from a step on."""

    def entry(step: int) -> dict[str, Any]:
        held = {"weights": f"{step} parted" if step >= parts_at else str(step)}
        return {"step": step, "ids": "i", "batches": "b", "loss": 0.5, "holds": held}

    write_ledger(path, {"run": "train.py", "every": 5}, map(entry, steps))


def join(folder: Path, name: str, first: dict[str, Any], second: dict[str, Any]) -> JobRecorded:
    paths = [folder / f"{name}{number}.jsonl" for number in range(2)]
    for path, rank in zip(paths, (first, second), strict=True):
        write_rank(path, *rank.get("steps", (5, 10, 15)), parts_at=rank.get("parts_at", 99))
    return join_ledgers(JOB, folder / f"{name}.jsonl", paths, ["weights"])


def test_a_difference_has_its_step_and_its_rank(tmp_path):
    join(tmp_path, "a", {}, {})
    join(tmp_path, "b", {}, {"parts_at": 10})
    join(tmp_path, "c", {"parts_at": 15}, {"parts_at": 10})
    one, *others = (tmp_path / f"{name}.jsonl" for name in "abc")
    said = [str(first_divergence(one, other)) for other in others]
    assert said[0].endswith("after boundary 5: at boundary 10 they differ in weights of rank 1.")
    assert said[1].endswith("in weights of rank 1. Then also: weights of rank 0 from 15 on.")
    join(tmp_path, "d", {"parts_at": 10}, {"parts_at": 10})
    assert str(first_divergence(one, tmp_path / "d.jsonl")).endswith("in weights of ranks 0, 1.")
    last = read_ledger(one).entries[-1]
    assert last["ranks"] == [
        read_ledger(tmp_path / f"a{n}.jsonl").entries[-1]["entry"] for n in (0, 1)
    ]


def test_causes_come_before_effects_whatever_the_rank():
    names = [
        f"{n} of rank {r}" for r in (0, 1) for n in ("weights", "loss", "usual", "streams/torch")
    ]
    one, other = ({"holds": dict.fromkeys(names, value)} for value in ("1", "2"))
    differing = differing_fields(one, other)
    assert [name.split(" ")[0] for name in differing[::2]] == [
        "streams/torch",
        "usual",
        "loss",
        "weights",
    ]


def test_what_is_kept_alike_and_parts_is_said(tmp_path):
    assert join(tmp_path, "a", {"parts_at": 10}, {"parts_at": 10}).parted == {}
    parted = join(tmp_path, "b", {}, {"parts_at": 10})
    assert parted.parted == {"weights": 10}
    assert "weights are not the same in all ranks from boundary 10 on" in str(parted)


def test_ranks_with_other_numbers_of_steps_are_refused(tmp_path):
    with pytest.raises(ScriptError, match="rank 1 of 2 took 10 steps and rank 0 15"):
        join(tmp_path, "a", {}, {"steps": (5, 10)})


def record(commands: Commands, folder: Path, name: str, *arguments: str) -> Said:
    (folder / "train.py").write_text(TRAIN)
    asked = ("ledger", "write", "--every", 2, "--out", f"{name}.jsonl", "--")
    return commands(folder, *asked, "torchrun", "--nproc-per-node", 2, "train.py", "--", *arguments)


@pytest.mark.long
def test_a_job_runs_as_without_bygones_and_a_flipped_bit_is_found(
    commands: Commands, tmp_path: Path
) -> None:
    first = record(commands, tmp_path, "a")
    assert first.code == 0, first.err
    bare = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "train.py"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert first.out == bare.stdout
    assert "at the end" in first.out
    assert record(commands, tmp_path, "b").code == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    flipped = record(commands, tmp_path, "c", "flip")
    assert "weights are not the same in all ranks from boundary 4 on" in flipped.err
    said = commands(tmp_path, "ledger", "diff", "a.jsonl", "c.jsonl")
    assert said.code == 1
    assert "at boundary 4 they differ in weights of rank 1." in said.out
    deep = commands(tmp_path, "ledger", "diff", "--deep", "a.jsonl", "c.jsonl")
    assert "records a job of 2 processes" in deep.err


@pytest.mark.long
def test_a_rank_that_raises_leaves_ledgers_that_can_be_read(
    commands: Commands, tmp_path: Path
) -> None:
    said = record(commands, tmp_path, "a", "raise")
    assert said.code == 8
    assert "ValueError: no data left" in said.err
    assert "rank 1 of 2: train.py raised ValueError: no data left" in said.err
    assert not read_ledger(tmp_path / "a.rank1.jsonl").complete
    with pytest.raises(LedgerError):
        read_ledger(tmp_path / "a.jsonl")
