"""A study's metadata: the same JSON comes out as went in, and one file alone reads it by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.helpers.synthetic import make_outcomes

import bygones
from bygones.core.errors import StoreError
from bygones.core.study_facts import CertificateFacts, StudyFacts, facts_of

SOURCES = Path(bygones.__file__).parent

# As a store of 2026 holds it, key by key.
RECORDED = {
    "study": "small",
    "recipe": "study.py:recipe",
    "fork_at": 4,
    "headline": "tv",
    "family": {
        "name": "every arm",
        "arms": ["reset"],
        "metrics": ["tv"],
        "horizons": [3],
        "method": "holm",
    },
    "margins": {},
    "arms": [
        {
            "name": "control",
            "role": "control",
            "null_of": None,
            "noun": None,
            "treatments": [],
            "sentence": "nothing",
        },
        {
            "name": "reset",
            "role": "treated",
            "null_of": None,
            "noun": None,
            "treatments": [
                {
                    "source": "moments",
                    "intervention": "reset",
                    "window": [4, 5],
                    "leaves": "*",
                    "lifetime": "unbounded",
                    "lifetime_steps": None,
                }
            ],
            "sentence": "resetting moments at step 4",
        },
    ],
    "sources": [
        {
            "name": "moments",
            "origin": "optimizer",
            "visibility": "state_dict",
            "lifetime": "unbounded",
            "leaves": 2,
            "bytes": 16,
        }
    ],
    "orders": {"policy": "Reshuffle", "policy_hash": "0d", "realised": {"0": "ab"}},
    "digests": {"study": "5a", "recipe": "7e"},
    "findings": [],
    "contract": {"device": "cpu", "threads": 1},
    "design": {"kind": "other", "why_not": "a program of its own"},
    "rng": {"contract": "addressed", "streams": []},
    "lanes": {"lanes": 1, "why": "one by one"},
    "num_steps": {"naive": 12, "shared": 7},
    "certificate": {
        "passed": True,
        "boundaries": [1, 7],
        "until": 15,
        "needed": ["weights"],
        "inert": [],
    },
}


@pytest.mark.parametrize("name", [None, *sorted(RECORDED.keys() - {"arms", "fork_at"})])
def test_what_is_read_is_written_again(name):
    """With all that a study records, and with any part of it not recorded."""
    value = {key: one for key, one in RECORDED.items() if key != name}
    told = StudyFacts.from_dict(value).to_dict()
    if name in ("study", "recipe"):
        assert told.pop(name) == ""
    assert json.dumps(told, sort_keys=True) == json.dumps(value, sort_keys=True)


def test_a_certificate_of_twins_keeps_its_kind_and_its_sufficiency():
    value = {**RECORDED["certificate"], "kind": "twins", "sufficiency": {"sufficient": True}}
    assert CertificateFacts.from_dict(value).to_dict() == value


def test_what_a_later_version_recorded_is_kept():
    value = {**RECORDED, "energy": {"joules": 3}}
    assert StudyFacts.from_dict(value).to_dict() == value


def test_metadata_travel_through_outcomes():
    outcomes = make_outcomes(num_seeds=2, num_inputs=4)
    assert facts_of(outcomes).to_dict() == outcomes.attrs
    assert {arm.role for arm in facts_of(outcomes).arms} >= {"control", "treated", "null"}


def test_the_longest_lifetime_counts():
    arms = {arm.name: arm for arm in StudyFacts.from_dict(RECORDED).arms}
    assert arms["control"].lifetime_steps is None
    assert arms["reset"].lifetime_steps == float("inf")


@pytest.mark.parametrize("name", ["arms", "fork_at"])
def test_outcomes_of_no_study_are_refused(name):
    value = {key: one for key, one in RECORDED.items() if key != name}
    with pytest.raises(StoreError, match=f"'{name}' is not recorded"):
        StudyFacts.from_dict(value)


def test_no_other_file_reads_the_attributes_of_outcomes():
    """`facts_of` is the one reader: a key that is misspelt elsewhere could not be found by a type checker."""
    readers = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(r"\.attrs\b(?!`)", path.read_text())
    }
    assert readers == {"core/study_facts.py"}
