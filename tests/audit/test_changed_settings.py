"""A resume under other settings: what they change by design is told from what the checkpoint omits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import Commands

from bygones.audit.resuming.changed_settings import (
    ChangedRuns,
    ChangedSource,
    add_hash_seed,
    describe_changed,
    gather_changed,
)

SCRIPT = Path(__file__).parents[1] / "specimens" / "other_settings.py"


def look(
    commands: Commands, folder: Path, *more: str, fault: str = ""
) -> tuple[int, dict[str, Any]]:
    asked = ("audit", "resume", "--at", "5", "--resume=--resume", "--json", *more)
    with_fault = ("--fault", fault) if fault else ()
    said = commands(folder, *asked, "--", SCRIPT, "--seed", "{seed}", *with_fault)
    assert said.code in (0, 1), said.err
    return said.code, json.loads(said.out)


def test_another_learning_rate_is_overwritten_by_the_checkpoint(commands: Commands, tmp_path):
    status, result = look(commands, tmp_path, "--then", "--lr 0.01")
    found = result["settings"]
    assert (status, result["failed"]) == (0, [])
    assert found["ignored"]
    assert found["by_seed"]["resumed"] == [0.0]
    assert found["by_seed"]["setting"][0] > 0
    effects = {one["source"]: one["effect"] for one in found["sources"]}
    assert effects["scheduler"] == "overwritten", found["sources"]


@pytest.mark.long
def test_a_position_in_batches_is_another_place_with_other_batches(commands: Commands, tmp_path):
    then = ("--then", "--batch-size 8")
    status, result = look(commands, tmp_path, *then, fault="position in batches")
    assert (status, result["failed"]) == (0, [])  # with the same batch size nothing is lost
    assert "0 are shown again and 20 never" in result["settings"]["data"]
    assert result["settings"]["by_seed"]["uninterrupted"][0] > 0


@pytest.mark.long
def test_what_the_checkpoint_loses_stays_a_failure(commands: Commands, tmp_path):
    then = ("--then", "--batch-size 8")
    status, result = look(commands, tmp_path, *then, fault="scheduler lost")
    assert (status, result["failed"]) == (1, ["scheduler"])
    assert "0 are shown again and 0 never" in result["settings"]["data"]
    assert "scheduler" not in [one["source"] for one in result["settings"]["sources"]]


@pytest.mark.long
def test_another_number_of_threads_changes_nothing_here(commands: Commands, tmp_path):
    status, result = look(commands, tmp_path, "--then-env", "OMP_NUM_THREADS=2")
    assert (status, result["failed"]) == (0, [])
    assert result["settings"]["settings"] == "OMP_NUM_THREADS=2"
    assert result["settings"]["ignored"]


@pytest.mark.parametrize(
    ("given", "other", "expected"),
    [
        ({"A": "1"}, True, {"PYTHONHASHSEED": "1", "A": "1"}),
        ({"A": "1"}, False, {"A": "1"}),
        ({"PYTHONHASHSEED": "7"}, True, {"PYTHONHASHSEED": "7"}),
        ({}, True, {}),
    ],
    ids=["resumed", "uninterrupted", "given", "no settings"],
)
def test_a_run_with_other_settings_keeps_its_hash_seed(monkeypatch, given, other, expected):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setenv("BYGONES_HASH_SEED_IS", "chosen")
    assert add_hash_seed(given, other=other) == expected


def test_several_seeds_have_intervals_and_one_says_that_it_has_none():
    source = ChangedSource("scheduler", "set", ("optimizer/[0/lr",))
    seeds = [
        ChangedRuns((source,), {"setting": x}, False, "the same batches", "", 9) for x in (1, 2)
    ]
    several, one = (gather_changed("--lr 1", seeds[:size], [0.5], {"values"}) for size in (2, 1))
    assert several is not None
    assert one is not None
    said = "\n".join(describe_changed(several))
    assert "RMS 1.5 [" in said
    assert "(2 seed pairs, paired t)" in said
    assert "another seed, without them: RMS 0.5" in said
    assert "(one seed pair, no interval)" in "\n".join(describe_changed(one))


def test_a_resume_that_cannot_go_on_is_said():
    runs = ChangedRuns((), {}, False, "", "raised RuntimeError: size mismatch", 5)
    found = gather_changed("--width 3", [runs], [], {"logits"})
    assert found is not None
    assert list(describe_changed(found))[1:] == [
        "  The resumed run raised RuntimeError: size mismatch."
    ]
