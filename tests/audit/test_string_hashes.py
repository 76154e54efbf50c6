"""The resumed run has another seed of string hashes, as a new Python has, unless the user has fixed it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.commands import Commands, Said, ask, start_server, stop_server

from bygones.attach.isolation.environment import HASH_SEED, HASH_SEED_IS, other_hash_seed

SCRIPT = Path(__file__).parents[1] / "specimens" / "string_hashes.py"
HASHES = "what follows from string hashes"


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    """Runs a command in a folder, with string hashes that the user has not fixed."""
    server = start_server("bygones.audit.resume_check", fixes_hashes=False)
    yield lambda folder, *arguments: ask(server, folder, *arguments)
    stop_server(server)


def check(commands, folder, fault) -> tuple[Said, dict]:
    resume = "--resume last.pt"
    asked = ("check-resume", "--seeds", "0", "--at", 12, "--resume", resume, "--json", "--", SCRIPT)
    said = commands(folder, *asked, "--seed", "{seed}", "--fault", fault)
    return said, json.loads(said.out)


def test_class_numbers_from_a_set_are_a_finding_and_nothing_else_is_blamed(commands, tmp_path):
    said, found = check(commands, tmp_path, "numbers")
    assert said.code == 1
    assert found["failed"] == [HASHES]
    assert (
        "differ by PYTHONHASHSEED alone have other losses from step 0"
        in found["verdicts"][0]["why"]
    )


@pytest.mark.long
def test_moments_that_are_given_to_other_parameters_are_found(commands, tmp_path):
    """Uninterrupted runs are the same in any order of the groups, so the resumed run alone shows it."""
    said, found = check(commands, tmp_path, "order")
    assert said.code == 1
    assert HASHES not in found["failed"]
    assert found["failed"][0] == "moments"


@pytest.mark.long
def test_a_script_that_sorts_is_clean_and_what_is_held_fixed_is_said(commands, tmp_path):
    said, found = check(commands, tmp_path, "")
    assert said.code == 0
    assert found["failed"] == []
    assert any("the resumed run had another hash seed" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("value", "kind", "other"),
    [("0", "chosen", "1"), ("7", None, None), ("7", "the user's", None), ("random", None, "1")],
)
def test_a_seed_that_the_user_has_fixed_is_kept(value, kind, other, monkeypatch):
    monkeypatch.setitem(os.environ, HASH_SEED, value)
    monkeypatch.delenv(HASH_SEED_IS, raising=False)
    if kind is not None:
        monkeypatch.setitem(os.environ, HASH_SEED_IS, kind)
    assert other_hash_seed() == other
