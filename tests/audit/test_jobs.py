"""Training in several processes: each loss is named with its ranks, and no process is left behind."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from tests.helpers.commands import Commands, Said

from bygones.attach.job.launch import read_launch
from bygones.core.errors import DesignError

SPECIMEN = Path(__file__).parents[1] / "specimens" / "ddp_harness.py"
EXAMPLE = Path(__file__).parents[2] / "examples" / "distributed" / "ddp.py"
JOB = ("--", "torchrun", "--nproc-per-node", 2)
BOTH = [0, 1]
# Of each fault, what it loses, and in which ranks.
FAULTS: dict[str, tuple[str, list[int]]] = {
    "generator of rank 1": ("streams/torch", [1]),
    "sampler epoch of rank 1": ("order", [1]),
    "position of rank 1": ("order", [1]),
    "variable of rank 1": ("usual", [1]),
    "moments of rank 1": ("moments", [1]),
    "moments": ("moments", BOTH),
    "private generators": ("streams/noise", BOTH),
    "scheduler": ("scheduler", BOTH),
    "buffers": ("batchnorm", BOTH),
}
LOOP = """
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
model = DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(6):
    {within}
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
LINE = 1 + LOOP.splitlines().index("    {within}")  # of what a test writes there


def check(
    commands: Commands, folder: Path, fault: str = "", save_at: int = 8
) -> dict[str, list[int]]:
    """The lost sources of the specimen, the cause first, each with the ranks in which it is lost."""
    resume = f"--resume --fault '{fault}'" if fault else "--resume"
    at = (save_at + 1) // 2  # two batches a step
    asked = ("audit", "resume", "--at", at, "--seeds", 0, "--resume", resume, "--json")
    said = commands(folder, *asked, *JOB, SPECIMEN, "--seed", "{seed}", "--save-at", save_at)
    found = json.loads(said.out)
    assert said.code == (0 if found["passed"] else 1)
    return {v["source"]: v["ranks"] for v in found["verdicts"] if v["outcome"] == "FAIL"}


@pytest.mark.long
@pytest.mark.parametrize("save_at", [8, 9], ids=["between steps", "within an accumulation"])
def test_a_clean_job_loses_nothing(commands: Commands, tmp_path: Path, save_at: int) -> None:
    assert check(commands, tmp_path, save_at=save_at) == {}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_loss_is_named_with_its_ranks(commands: Commands, tmp_path: Path, fault: str) -> None:
    lost = check(commands, tmp_path, fault)
    assert next(iter(lost.items())) == FAULTS[fault]


@pytest.mark.long
def test_gradients_that_each_rank_accumulates_are_lost(commands: Commands, tmp_path: Path) -> None:
    assert check(commands, tmp_path, "gradients", save_at=9) == {"gradients": BOTH}


def test_the_sources_of_a_job_say_what_its_ranks_hold_alike(
    commands: Commands, tmp_path: Path
) -> None:
    said = commands(tmp_path, "sources", "--at", 2, "--json", *JOB, SPECIMEN, "--seed", "{seed}")
    assert said.code == 0, said.err
    ranks = {one["name"]: one["ranks"] for one in json.loads(said.out)["sources"]}
    assert ranks["weights"] == ranks["moments"] == ranks["scheduler"] == "alike"
    assert ranks["order"] == "each rank's own"
    assert ranks["streams"].startswith("each rank's own: ")
    assert json.loads(said.out)["findings"] == []


# ------------------------------------------------------------------ jobs that cannot be followed


def sources(commands: Commands, folder: Path, within: str, *options: object) -> Said:
    (folder / "train.py").write_text(LOOP.format(within=within))
    return commands(folder, "sources", "--at", 4, *options, *JOB, "train.py")


def left_behind(folder: Path) -> list[str]:
    """The processes whose working directory is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text())
    return found


def test_a_rank_that_raises_is_named_with_its_own_traceback(
    commands: Commands, tmp_path: Path
) -> None:
    said = sources(
        commands, tmp_path, "if rank == 1 and step == 2: raise ValueError('no data left')"
    )
    assert said.code == 8
    assert "rank 1 of 2" in said.err
    assert "ValueError: no data left" in said.err
    assert f"line {LINE}," in said.err
    assert "bygones/" not in said.err.split("Traceback")[-1]
    assert left_behind(tmp_path) == []


@pytest.mark.long
def test_a_rank_that_is_killed_is_named(commands: Commands, tmp_path: Path) -> None:
    said = sources(commands, tmp_path, "if rank == 1 and step == 2: os.kill(os.getpid(), 9)")
    assert said.code == 8
    assert "rank 1 of 2 was killed" in said.err
    assert "after 2 steps" in said.err


def test_ranks_that_wait_in_vain_are_ended_with_the_place_of_each(
    commands: Commands, tmp_path: Path
) -> None:
    said = sources(
        commands, tmp_path, "while rank == 1 and step == 2: time.sleep(0.1)", "--patience", 1
    )
    assert said.code == 8
    assert "hang" in said.err
    assert "rank 1 has taken 2 steps" in said.err
    assert f"train.py, line {LINE}, in" in said.err
    assert "runpy" not in said.err  # the script's own frames alone
    assert left_behind(tmp_path) == []


@pytest.mark.long
def test_ranks_with_different_numbers_of_steps_are_refused(
    commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(LOOP.format(within="if rank == 1 and step == 4: break"))
    said = commands(tmp_path, "audit", "resume", "--at", 2, "--patience", 2, *JOB, "train.py")
    assert said.code == 8
    assert "rank 0 has taken 4 steps" in said.err
    assert "rank 1 has taken 4 steps and is done" in said.err
    assert "Each rank has to take the same steps" in said.err


def test_a_command_for_one_process_refuses_a_job(commands: Commands, tmp_path: Path) -> None:
    said = commands(tmp_path, "run", "--fork-at", 2, *JOB, EXAMPLE)
    assert said.code == 2
    assert "a script of one process" in said.err


def test_accelerate_launch_is_refused_with_what_to_write(
    commands: Commands, tmp_path: Path
) -> None:
    said = commands(tmp_path, "sources", "--", "accelerate", "launch", "train.py")
    assert said.code == 2
    assert "torchrun --nproc-per-node N" in said.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--nnodes", "2", "train.py"], "one machine"),
        (["--nproc-per-node", "gpu", "train.py"], "number of processes"),
        (["--nproc-per-node", "0", "train.py"], "number of processes"),
        (["--max-restarts", "3", "--nproc-per-node", "2", "train.py"], "another run"),
        (["-m", "package.train"], "path of a Python file"),
        (["--nproc-per-node", "2"], "torchrun does not take these arguments"),
    ],
)
def test_a_launch_that_cannot_be_followed_is_one_sentence(words: list[str], why: str) -> None:
    with pytest.raises(DesignError, match=why):
        read_launch(["torchrun", *words])
