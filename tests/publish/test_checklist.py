"""The reporting checklist: it says what the record says, and nothing that it does not."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tests.helpers.synthetic import make_outcomes

from bygones.publish.checklist import checklist, headline_of, schema, to_markdown
from bygones.publish.report import write_report

RNG = {
    "contract": "addressed",
    "derivation": "a hash",
    "looked_at": [2, 5],
    "streams": [
        {"name": "init", "generator": "", "derived": "", "drawn": True, "drawn_by": "the recipe"},
        {"name": "python", "generator": "", "derived": "", "drawn": False, "drawn_by": ""},
    ],
    "dtypes": ["float32"],
}


def filled(outcomes: xr.Dataset) -> dict[str, dict[str, Any]]:
    return {item["item"]: item for item in checklist(outcomes)["items"]}


def with_attributes(outcomes: xr.Dataset, **changes: Any) -> xr.Dataset:
    return outcomes.assign_attrs({**copy.deepcopy(outcomes.attrs), **changes})


@pytest.fixture(scope="module")
def outcomes() -> xr.Dataset:
    """A study of which all is recorded that a study records, and nothing is amiss."""
    made = make_outcomes(num_seeds=5, num_inputs=16)
    certificate = {**made.attrs["certificate"], "inert": []}
    family = {
        "name": "every arm", "arms": ["reset-moments"], "metrics": ["tv"], "horizons": [300],
        "method": "holm",
    }  # fmt: skip
    return with_attributes(
        made, rng=RNG, findings=[], certificate=certificate, family=family, margins={"tv": 0.01}
    )


# ------------------------------------------------------------------ its form


def check(value: Any, form: dict[str, Any], where: str = "") -> list[str]:
    """What is wrong with a value by a JSON Schema, as far as this one uses the language."""
    if "const" in form and value != form["const"]:
        return [f"{where}: {value!r} is not {form['const']!r}"]
    if "enum" in form and value not in form["enum"]:
        return [f"{where}: {value!r} is none of {form['enum']}"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    if "type" in form and type(value) is not kinds[form["type"]]:
        return [f"{where}: a {type(value).__name__}"]
    wrong = []
    if isinstance(value, dict):
        known = form.get("properties", {})
        wrong += [f"{where}: no {name}" for name in form.get("required", []) if name not in value]
        if form.get("additionalProperties") is False:
            wrong += [f"{where}: {name} is not known" for name in value if name not in known]
        for name in value.keys() & known.keys():
            wrong += check(value[name], known[name], f"{where}/{name}")
        for rule in form.get("allOf", []):
            if not check(value, rule["if"], where):
                wrong += check(value, rule["then"], where)
    if isinstance(value, list):
        wrong += [] if len(value) >= form.get("minItems", 0) else [f"{where}: too few"]
        for place, item in enumerate(value):
            wrong += check(item, form.get("items", {}), f"{where}/{place}")
    if isinstance(value, str) and len(value) < form.get("minLength", 0):
        wrong.append(f"{where}: empty")
    if type(value) is int and value < form.get("minimum", value):
        wrong.append(f"{where}: {value} is too small")
    return wrong


def check_form(value: Any) -> None:
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert check(value, schema()) == []
    counts = [item["status"] for item in value["items"]]
    assert value["counts"] == {kind: counts.count(kind) for kind in value["counts"]}


BARE = ("arms", "fork_at")  # without these there are no effects, and so no study


@pytest.mark.parametrize("kind", ["logits", "values"])
@pytest.mark.parametrize("num_seeds", [1, 2, 5])
def test_every_checklist_has_the_form_of_its_schema(kind, num_seeds):
    made = make_outcomes(num_seeds=num_seeds, num_inputs=8, kind=kind)
    check_form(checklist(made))
    made.attrs = {name: made.attrs[name] for name in BARE}
    check_form(checklist(made))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c["items"][0].update(status="perhaps"),
        lambda c: c["items"][0].update(status="answered", answer=""),
        lambda c: c["items"][0].update(status="not recorded", answer="surely"),
        lambda c: c["items"][0].update(status="flagged", why=""),
        lambda c: c["items"][0].pop("why"),
        lambda c: c.update(more=1),
        lambda c: c.update(format=2),
        lambda c: c["counts"].update(answered=-1),
        lambda c: c.update(items=[]),
    ],
    ids=range(9),
)
def test_the_schema_refuses_what_is_no_checklist(outcomes, spoil):
    value = checklist(outcomes)
    spoil(value)
    assert check(value, schema())


# ------------------------------------------------------------------ nothing is claimed


def test_what_was_not_recorded_is_not_claimed():
    made = make_outcomes(num_seeds=3, num_inputs=8)
    made.attrs = {name: made.attrs[name] for name in BARE}
    said = filled(made)
    answered = {name for name, item in said.items() if item["status"] != "not recorded"}
    assert answered == {
        # From the arms and the outcomes themselves:
        "How each source was treated", "Windows against lifetimes", "Seeds and unit", "Estimands",
        "Interval method", "Sham", "Matched nulls", "Ceiling: another seed", "Fork and horizons",
        "Divergence",
    }  # fmt: skip


RECORDS = {
    "sources": {"Sources of memory, with their lifetimes", "Sources that were left alone"},
    "orders": {"Policy of the data order", "Realised orders"},
    "rng": {"RNG contract"},
    "contract": {"Numeric contract"},
    "num_steps": {"Compute: steps"},
    "certificate": {
        "Fork check",
        "Sources that make no difference (inert)",
        "How arms were made",
    },
    "digests": {"Code and design"},
    "family": {"Multiplicity"},
    "margins": {"Margins for absence"},
    "findings": {"What was not controlled"},
}


@pytest.mark.parametrize("name", RECORDS)
def test_without_its_record_an_item_is_not_recorded(outcomes, name):
    before = filled(outcomes)
    assert all(before[item]["status"] == "answered" for item in RECORDS[name])
    without = outcomes.assign_attrs()
    without.attrs = {key: value for key, value in outcomes.attrs.items() if key != name}
    after = filled(without)
    gone = {n for n in after if after[n]["status"] == "not recorded" != before[n]["status"]}
    assert RECORDS[name] <= gone
    assert all(after[n]["answer"] == "" for n in gone)


def test_what_no_study_records_is_never_answered(outcomes):
    said = filled(outcomes)
    for item in ("Stability exponent", "Compute: time and energy"):
        assert said[item]["status"] == "not recorded"
    assert said["Recomputation of BatchNorm statistics"]["status"] == "not recorded"
    sources = [s for s in outcomes.attrs["sources"] if s["name"] != "batchnorm"]
    said = filled(with_attributes(outcomes, sources=sources))
    assert "No BatchNorm" in said["Recomputation of BatchNorm statistics"]["answer"]
    averages = {**sources[0], "name": "averages", "origin": "averaging"}
    said = filled(with_attributes(outcomes, sources=[*sources, averages]))
    assert said["Averaging, and which weights were evaluated"]["status"] == "not recorded"


# ------------------------------------------------------------------ what is flagged


def test_a_study_with_nothing_amiss_has_no_flag(outcomes):
    flagged = [item for item in checklist(outcomes)["items"] if item["status"] == "flagged"]
    assert flagged == []


def moved_sham(outcomes: xr.Dataset) -> xr.Dataset:
    moved = outcomes.copy(deep=True)
    moved["logits"].loc[{"arm": "sham", "step": 310}] += np.float32(0.25)
    return moved


def unmatched(outcomes: xr.Dataset) -> xr.Dataset:
    return outcomes.sel(
        arm=[a for a in outcomes.arm.values if a != "swap-order-null"]
    ).assign_attrs(arms=[a for a in outcomes.attrs["arms"] if a["name"] != "swap-order-null"])


SPOILED = {
    "Sham": (moved_sham, "moves an output by up to 0.25"),
    "Matched nulls": (unmatched, "Without a matched null: swap-order"),
    "Seeds and unit": (lambda o: o.isel(seed=[0]), "With one seed there is no interval"),
    "Ceiling: another seed": (lambda o: o.isel(seed=[0]), "no other to compare"),
    "Divergence": (
        lambda o: o.assign(diverged_at=o.diverged_at.fillna(310.0)),
        "40 runs diverged",
    ),
    "Fork check": (
        lambda o: with_attributes(o, certificate={**o.attrs["certificate"], "passed": False}),
        "not equal",
    ),
    "Sources that make no difference (inert)": (
        lambda o: with_attributes(o, certificate={**o.attrs["certificate"], "inert": ["order"]}),
        "the fork check abstains",
    ),
    "Windows against lifetimes": (
        lambda o: with_attributes(o, findings=["Window longer than the memory: order."]),
        "Window longer than the memory",
    ),
    "What was not controlled": (
        lambda o: with_attributes(o, findings=["Arm 'a' of seed 0 raised."]),
        "Arm 'a' of seed 0 raised.",
    ),
    "Numeric contract": (
        lambda o: with_attributes(o, contract={"deterministic": False}),
        "not asked for",
    ),
    "RNG contract": (
        lambda o: with_attributes(
            o, rng={**RNG, "streams": [*RNG["streams"], {"name": "workers", "drawn": None}]}
        ),
        "Not looked at: workers",
    ),
    "Realised orders": (
        lambda o: with_attributes(
            o, orders={**o.attrs["orders"], "realised": {str(s): "a" for s in range(5)}}
        ),
        "the same order",
    ),
}


@pytest.mark.parametrize("item", SPOILED)
def test_what_is_amiss_is_flagged_and_said(outcomes, item):
    spoil, words = SPOILED[item]
    value = checklist(spoil(outcomes))
    check_form(value)
    found = {one["item"]: one for one in value["items"]}[item]
    assert found["status"] == "flagged"
    assert words in f"{found['answer']} {found['why']}"


def test_sources_that_were_the_same_in_both_runs_are_named_and_no_fault(outcomes):
    certificate = {**outcomes.attrs["certificate"], "inert": [], "constant": ["scheduler"]}
    item = filled(with_attributes(outcomes, certificate=certificate))[
        "Sources that make no difference (inert)"
    ]
    assert item["status"] == "answered"
    assert "not tested: scheduler" in item["answer"]


def test_a_sham_that_was_merged_with_its_control_is_said_to_be(outcomes):
    assert filled(outcomes)["Sham"]["answer"].endswith("every output equals the control's.")
    arms = [arm["role"] for arm in outcomes.attrs["arms"]]
    equal_from = np.full((5, len(arms)), np.nan)
    equal_from[1:, arms.index("sham")] = 301
    merged = outcomes.assign(equal_from=(("seed", "arm"), equal_from))
    assert (
        "In 4 of 5 seeds its training ended where its whole state"
        in filled(merged)["Sham"]["answer"]
    )


def test_a_sham_that_diverged_everywhere_is_not_called_exact(outcomes):
    broken = outcomes.copy(deep=True)
    broken["logits"].loc[{"arm": "sham"}] = np.nan
    assert filled(broken)["Sham"]["status"] == "flagged"


# ------------------------------------------------------------------ where it is shown


def test_as_markdown_every_item_is_a_row(outcomes):
    odd = with_attributes(outcomes, study="a | b", findings=["A | pipe\nand a line."])
    value = checklist(odd)
    text = to_markdown(value)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(value["items"])
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)
    assert headline_of(value) in text


def test_the_report_has_it_and_its_headline(outcomes, tmp_path, page_only):
    page = write_report(outcomes, tmp_path).read_text()
    value = checklist(outcomes)
    assert headline_of(value) in page
    assert all(item["item"] in page for item in value["items"])
    assert "Seen to draw: init; not seen to: python" in page
