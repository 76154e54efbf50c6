"""What a fuzzer found or began with is read by every target; `benchmarks/fuzz.py` finds more."""

from __future__ import annotations

import pytest
from benchmarks import fuzz
from tests.helpers.fuzz_targets import SEEDS, TARGETS, base, edited, seeds_of, signed_ledger

from bygones.store.ledger import read_ledger

pytestmark = pytest.mark.xdist_group("fuzz")  # the study that they change is made once


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_of_a_target_lead_to_sentences_alone(name: str) -> None:
    seeds = seeds_of(name)
    assert len(seeds) >= 3
    for content in seeds.values():
        TARGETS[name](content)


def test_a_fault_is_seen_by_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("steps")

    base()
    for name, place in {
        "ledger": "read_ledger",
        "record": "read_outcomes",
        "manifest": "read_outcomes",
        "safetensors": "unpack",
        "zip": "open_bundle",
        "bundle": "verify_bundle",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"tests.helpers.fuzz_targets.{place}", fail)
            patch.setattr("tests.helpers.fuzz_targets.read_study", fail)
            with pytest.raises(KeyError, match="steps"):
                TARGETS[name](b"")


def test_the_command_knows_the_same_targets() -> None:
    assert set(fuzz.TARGETS) == set(TARGETS) == {path.name for path in SEEDS.iterdir()}


def test_what_is_signed_anew_is_read_further_than_its_digests(tmp_path) -> None:
    """Otherwise no fuzzer would come past them."""
    (tmp_path / "a").write_bytes(
        signed_ledger(b'{"ledger":1}\n{"step":4,"entry":"?"}\n{"end":1,"header":""}')
    )
    read = read_ledger(tmp_path / "a")
    assert read.complete
    assert [line["step"] for line in read.entries] == [4]


def test_changes_of_fields() -> None:
    value = {"a": [1, {"b": 2}], "c": "x"}
    assert edited(value, b"") == value
    assert edited(value, b"4:\n5:7") == {"a": [1, {}], "c": 7}
    assert edited(value, b"0:null") is None
    assert edited(value, b"1:[\nzzz\n99:1") != value
