"""Every known way to lose memory on resuming is caught and named, and its clean twin is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.specimen_checks import SETTINGS, SPECIMENS, WATCHED, Setting, watching


@pytest.fixture
def check(commands, tmp_path):
    """Checks a specimen with a fault, or its clean twin, and gives what the check found."""

    def run(setting: Setting, fault: str = "") -> dict[str, Any]:
        said = commands(tmp_path, *setting.command(fault))
        assert said.out, said.err
        found = json.loads(said.out)
        assert said.code == (1 if found["failed"] else 0)
        assert found["floor"] == 0.0
        return found

    return run


@pytest.fixture
def observers(commands, tmp_path):
    """What each observer of a script left behind that alters the run, by the place that is named."""

    def run(script: str, fault: str = "") -> dict[str, set[str]]:
        said = commands(tmp_path, *watching(script, fault))
        assert said.out, said.err
        return {
            seen["place"]: {t["source"] for t in seen["traces"] if t["alters"]}
            for seen in json.loads(said.out)
        }

    return run


# Every other loss and clean twin; `make test-long` runs the rest, and `benchmarks/specimens.py` all of them.
LOSSES = [
    pytest.param(one, id=one.id, marks=[pytest.mark.long] if number % 2 else [])
    for number, one in enumerate(SPECIMENS)
]


@pytest.mark.parametrize("specimen", LOSSES)
def test_a_loss_is_caught_and_named(check, specimen):
    found = check(specimen.setting, specimen.fault)
    assert specimen.named in found["failed"], found["verdicts"]
    (verdict,) = (v for v in found["verdicts"] if v["source"] == specimen.named)
    if specimen.silent:
        assert verdict["first_loss"] is None
    elif specimen.setting.again is None:
        assert verdict["first_loss"] >= found["start"]


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(one, marks=[pytest.mark.long] if n % 2 else [])
        for n, one in enumerate(SETTINGS)
    ],
    ids=lambda setting: " ".join([Path(setting.script).stem, *setting.arguments]),
)
def test_a_clean_twin_has_no_failure(check, setting):
    found = check(setting)
    assert found["failed"] == [], found["verdicts"]
    assert any(verdict["outcome"] == "PASS" for verdict in found["verdicts"])


@pytest.mark.parametrize(
    ("script", "fault", "place", "source"), WATCHED, ids=[fault for _, fault, _, _ in WATCHED]
)
def test_an_observer_that_alters_the_run_is_named(observers, script, fault, place, source):
    found = observers(script, fault)
    assert any(seen.startswith(place) and source in altered for seen, altered in found.items())


@pytest.mark.parametrize("script", ["validation.py", "saving.py"])
def test_an_observer_that_leaves_no_trace_is_not_accused(observers, script):
    found = observers(script)
    assert found
    assert not any(found.values())
