"""The data at an epoch's edge: a new loader, workers that read ahead, a second loader."""

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "specimens" / "epoch_data.py"
WAYS = (pytest.param("built anew", marks=pytest.mark.long), "workers", "zipped")


@pytest.mark.parametrize("way", WAYS)
def test_the_inventory_is_complete_at_an_epochs_edge(way, commands, tmp_path):
    asked = ("sufficiency", "--at", 16, "--until", 36, "--json", "--", SCRIPT, "--seed", "{seed}")
    said = commands(tmp_path, *asked, "--way", way)
    found = json.loads(said.out)
    assert said.code == 0
    assert found["sufficient"]
    assert {"moments", "streams/shuffling"} <= set(found["needed"])


@pytest.mark.parametrize(
    ("way", "fault", "lost"),
    [
        pytest.param("built anew", "shuffling", "streams/shuffling", marks=pytest.mark.long),
        ("workers", "shuffling", "streams/shuffling"),
        ("zipped", "shuffling", "streams/shuffling"),
        ("workers", "noise", "streams/noise"),
    ],
)
def test_a_generator_that_is_lost_is_blamed_and_not_the_order(way, fault, lost, commands, tmp_path):
    resume = f"--resume last.pt --fault {fault}"
    asked = ("check-resume", "--seeds", "0", "--at", 20, "--resume", resume, "--json", "--", SCRIPT)
    said = commands(tmp_path, *asked, "--seed", "{seed}", "--way", way)
    found = json.loads(said.out)
    assert said.code == 1
    assert found["failed"] == [lost]
    assert (
        found["crossed"]["epoch edges"] == 2
    )  # steps 24 and 32: the run resumes at 16, and ends at 39


@pytest.mark.parametrize("way", WAYS)
def test_where_both_are_saved_nothing_is_lost(way, commands, tmp_path):
    asked = (
        "check-resume",
        "--seeds",
        "0",
        "--at",
        20,
        "--resume",
        "--resume last.pt",
        "--json",
        "--",
        SCRIPT,
    )
    said = commands(tmp_path, *asked, "--seed", "{seed}", "--way", way)
    assert said.code == 0
    assert json.loads(said.out)["failed"] == []
