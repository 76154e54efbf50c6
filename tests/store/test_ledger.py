"""The ledger: nothing in it can be changed unnoticed, and two of them are bisected to where they part."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bygones.core.errors import LedgerError
from bygones.core.hash_chain import extend_chain, ledger_entry, state_digests
from bygones.store import ledger, ledger_diff
from bygones.store.ledger import read_ledger, write_ledger
from bygones.store.ledger_diff import differing_fields, first_divergence

HEADER = {"run": "made up, with ü", "seed": 3, "every": 1, "contract": {"threads": 1}}
SOURCES = ("weights", "moments", "streams/torch", "order")


def lines_of(num: int, parts_at: int | None = None, names: Sequence[str] = ()) -> list[dict]:
    """A run's entries; from `parts_at` on, `names` are not as in the run that carries on."""
    made = []
    for step in range(num):
        parted = parts_at is not None and step >= parts_at
        said = {
            name: f"{name}-{step}{'-other' if parted and name in names else ''}"
            for name in (*SOURCES, "ids", "batches")
        }
        holds = {name: said[name] for name in SOURCES}
        made.append(ledger_entry(step, said["ids"], said["batches"], 1.0 / (step + 1), holds))
    return made


@contextmanager
def folder() -> Iterator[Path]:
    """hypothesis runs many examples in one test, so pytest's folder would be shared by them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# ------------------------------------------------------------------ what is written can be read


numbers = st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float))
names = st.text('abü\n\\"/{}:, ', min_size=1, max_size=6)
entries = st.lists(
    st.tuples(names, names, numbers, st.dictionaries(names, names, max_size=3)), max_size=6
)


@given(
    entries,
    st.dictionaries(
        names,
        st.one_of(names, st.integers(), st.none()),
        max_size=3,
    ),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(said, more):
    written = [ledger_entry(step, *one) for step, one in enumerate(said)]
    with folder() as place:
        write_ledger(place / "a", {**more, **HEADER}, written)
        read = read_ledger(place / "a")
    assert read.complete
    assert read.header == {**more, **HEADER, "ledger": ledger.FORMAT}
    assert [{k: v for k, v in e.items() if k != "entry"} for e in read.entries] == written


def test_a_loss_that_is_no_number_is_written_in_words(tmp_path):
    losses = [math.nan, math.inf, -math.inf, None, 0.25]
    written = [ledger_entry(step, "", "", loss, {}) for step, loss in enumerate(losses)]
    write_ledger(tmp_path / "a", HEADER, written)
    text = (tmp_path / "a").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert [e["loss"] for e in read_ledger(tmp_path / "a").entries] == [
        "nan", "inf", "-inf", None, 0.25
    ]  # fmt: skip
    write_ledger(tmp_path / "b", HEADER, written)
    assert first_divergence(tmp_path / "a", tmp_path / "b").equal


def test_a_ledger_is_never_written_over(tmp_path):
    write_ledger(tmp_path / "a", HEADER, lines_of(2))
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(LedgerError, match=r"there is a .* already, and a ledger is never"):
        write_ledger(tmp_path / "a", HEADER, lines_of(3))
    assert (tmp_path / "a").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot write the ledger"):
        write_ledger(tmp_path / "file" / "a", HEADER, [])


# ------------------------------------------------------------------ what is changed is refused


def refused_at(path: Path) -> int | None:
    """The line that a reader refuses; None if it takes all of them."""
    try:
        read_ledger(path)
    except LedgerError as error:
        number = str(error).removeprefix(f"{path}, line ").partition(":")[0]
        return int(number)
    return None


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_byte_that_is_changed_is_refused_at_its_line_or_the_next(data):
    with folder() as place:
        path = place / "a"
        write_ledger(path, HEADER, lines_of(4))
        whole = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(whole) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]))
        line = whole[:at].count(b"\n") + 1
        whole[at] = byte
        path.write_bytes(whole)
        assert refused_at(path) == line


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_cut_is_refused_or_seen(data):
    with folder() as place:
        path = place / "a"
        write_ledger(path, HEADER, lines_of(4))
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
        cut = path.read_bytes()
        if cut.endswith(b"\n"):  # between two lines, as a run that raised leaves it
            assert not read_ledger(path).complete
        else:
            assert refused_at(path) == cut.count(b"\n") + 1


@given(st.permutations(range(6)))
@settings(max_examples=60, deadline=None)
def test_lines_in_another_order_are_refused(order):
    with folder() as place:
        path = place / "a"
        write_ledger(path, HEADER, lines_of(4))
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[i] for i in order))
        wrong = [at for at, i in enumerate(order, start=1) if i != at - 1]
        assert refused_at(path) == (wrong[0] if wrong else None)


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], 3, "the chain is broken"),
        (lambda lines: [*lines, lines[-1]], 7, "goes on after its last line"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "the chain is broken"),
        (lambda lines: [lines[0].replace(b'"every":1', b'"every": 1'), *lines[1:]], 1, "as a ledger"),
        (lambda lines: [*lines[:4], b"no JSON\n", *lines[4:]], 5, "not a line of JSON"),
        (lambda lines: [*lines[:4], b"[1]\n", *lines[4:]], 5, "not a line as a ledger writes it"),
        (lambda lines: [*lines[:4], b"\xff\n"], 5, "not a line of JSON"),
        (lambda lines: [*lines[:4], b"[" * 100_000 + b"\n"], 5, "not a line of JSON"),
        (lambda lines: [*lines[:4], lines[4][:-9]], 5, "cut short"),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_was_done_to_it_is_said(tmp_path, change, line, words):
    path = tmp_path / "a"
    write_ledger(path, HEADER, lines_of(4))
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(LedgerError, match=rf"line {line}: .*{words}"):
        read_ledger(path)


def test_a_header_cannot_be_exchanged_for_another_ones(tmp_path):
    write_ledger(tmp_path / "a", HEADER, lines_of(4))
    write_ledger(tmp_path / "b", {**HEADER, "seed": 4}, lines_of(4))
    mine, theirs = ((tmp_path / n).read_text().splitlines(keepends=True) for n in "ab")
    assert mine[1:-1] == theirs[1:-1]
    (tmp_path / "c").write_text("".join([theirs[0], *mine[1:]]))
    assert refused_at(tmp_path / "c") == 6


def test_steps_rise_and_the_format_is_known(tmp_path):
    write_ledger(tmp_path / "a", HEADER, [*lines_of(2), lines_of(2)[1]])
    with pytest.raises(LedgerError, match="line 4: steps must rise"):
        read_ledger(tmp_path / "a")
    write_ledger(tmp_path / "b", {**HEADER, "ledger": 2}, lines_of(2))
    for read in (read_ledger, lambda path: first_divergence(path, path)):
        with pytest.raises(LedgerError, match=r"line 1: not the first line .* \(found 2\)"):
            read(tmp_path / "b")


def test_what_is_no_ledger_is_said_to_be_none(tmp_path):
    (tmp_path / "empty").write_text("")
    for read in (read_ledger, lambda path: first_divergence(path, path)):
        with pytest.raises(LedgerError, match="is empty"):
            read(tmp_path / "empty")
        with pytest.raises(LedgerError, match="cannot read the ledger"):
            read(tmp_path / "missing")
        with pytest.raises(LedgerError, match="cannot read the ledger"):
            read(tmp_path)
    write_ledger(tmp_path / "bare", HEADER, [])
    with pytest.raises(LedgerError, match="has no entries"):
        first_divergence(tmp_path / "bare", tmp_path / "bare")


# ------------------------------------------------------------------ where two of them part


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 45), st.data())
@settings(max_examples=150, deadline=None)
def test_the_parting_is_where_a_linear_search_finds_it(num_one, num_other, parts_at, data):
    changed = data.draw(st.lists(st.sampled_from([*SOURCES, "ids", "batches"]), min_size=1))
    every = data.draw(st.integers(1, 3))
    mine = [line for line in lines_of(num_one) if line["step"] % every == 0]
    theirs = [line for line in lines_of(num_other, parts_at, changed) if line["step"] % every == 0]
    with folder() as place:
        write_ledger(place / "a", {**HEADER, "every": every}, mine)
        write_ledger(place / "b", {**HEADER, "every": every, "seed": 4444}, theirs)
        found = first_divergence(place / "a", place / "b")
    both = list(zip(mine, theirs, strict=False))
    first = next((one["step"] for one, other in both if one != other), None)
    equal = [one["step"] for one, other in both if one == other]
    assert found.step == first
    assert found.before == max(equal, default=None)
    assert set(found.first) == (set(changed) if first is not None else set())
    assert found.equal == (first is None and len(mine) == len(theirs))
    assert found.entries == (len(mine) if found.equal else None)
    assert found.headers == ("seed",)


def test_what_differs_is_named_in_causal_order_and_what_follows_too(tmp_path):
    early = lines_of(12, 5, ["weights", "moments", "batches", "ids", "streams/torch"])
    write_ledger(tmp_path / "a", HEADER, lines_of(12))
    write_ledger(tmp_path / "b", HEADER, early)
    found = first_divergence(tmp_path / "a", tmp_path / "b")
    assert found.first == ("streams/torch", "ids", "batches", "moments", "weights")
    later = [{**line} for line in lines_of(12, 5, ["streams/torch"])]
    for step, name in ((6, "order"), (8, "weights")):
        for line in later[step:]:
            line["holds"] = {**line["holds"], name: "other"}
    later[9]["loss"] = 7.0
    write_ledger(tmp_path / "c", HEADER, later)
    found = first_divergence(tmp_path / "a", tmp_path / "c")
    assert (found.step, found.before, found.first) == (5, 4, ("streams/torch",))
    assert found.followed == (("order", 6), ("weights", 8), ("loss", 9))
    assert str(found) == (
        "The two runs part after boundary 4: at boundary 5 they differ in streams/torch. Then also: order "
        "from 6 on; weights from 8 on; loss from 9 on."
    )


def test_a_variable_may_be_called_like_what_an_entry_says_itself():
    one, other = (ledger_entry(1, "a", "b", 0.5, {"loss": held, "ids": "i"}) for held in ("x", "y"))
    assert differing_fields(one, other) == ("loss (held)",)


def test_from_the_start_on(tmp_path):
    write_ledger(tmp_path / "a", HEADER, lines_of(3))
    write_ledger(tmp_path / "b", HEADER, lines_of(3, 0, ["weights"]))
    found = first_divergence(tmp_path / "a", tmp_path / "b")
    assert found.before is None
    assert str(found).startswith(
        "The two runs part from the start on: at boundary 0 they differ in"
    )


def test_equal_ledgers_are_said_to_be_so(tmp_path):
    whole = tmp_path / "a"
    write_ledger(whole, HEADER, lines_of(20))
    text = whole.read_bytes()
    lines = text.splitlines(keepends=True)
    said = {
        "again": text,
        "unfinished": b"".join(lines[:-1]),
        "killed": b"".join(lines[:-1]) + lines[-1][:-7],
        "shorter": b"".join(lines[:12]),
        "killed earlier": b"".join(lines[:12]) + lines[12][:-1],
    }
    for name, content in said.items():
        (tmp_path / name).write_bytes(content)
    found = {name: first_divergence(whole, tmp_path / name) for name in said}
    assert str(found["again"]) == (
        "The two ledgers are equal, all 20 entries of them, up to boundary 19."
    )
    half = "The two ledgers are equal up to boundary 19, where both end, one of them without its last line."
    assert str(found["unfinished"]) == str(found["killed"]) == half
    shorter = "The two ledgers are equal up to boundary 10, where the shorter ends."
    assert str(found["shorter"]) == str(found["killed earlier"]) == shorter
    assert [name for name in said if not found[name].equal] == ["shorter", "killed earlier"]
    both = first_divergence(tmp_path / "unfinished", tmp_path / "killed")
    assert both.equal
    assert "without the last line of a run that came to its end" in str(both)


def test_the_last_entry_of_a_run_may_lie_between_the_others(tmp_path):
    steps = [{**line, "step": 10 * line["step"]} for line in lines_of(5)]
    ends_early = [*steps[:3], {**steps[3], "step": 25}]
    for name, lines in (("a", steps), ("b", ends_early), ("c", ends_early[-1:])):
        write_ledger(tmp_path / name, {**HEADER, "every": 10}, lines)
    found = first_divergence(tmp_path / "a", tmp_path / "b")
    assert (found.step, found.before, found.equal) == (None, 20, False)
    assert first_divergence(tmp_path / "b", tmp_path / "b").entries == 4
    with pytest.raises(LedgerError, match="no boundary in common"):
        first_divergence(tmp_path / "a", tmp_path / "c")


def test_entries_at_other_steps_cannot_be_compared(tmp_path):
    for every in (1, 10):
        write_ledger(tmp_path / str(every), {**HEADER, "every": every}, lines_of(3))
    with pytest.raises(LedgerError, match=r"an entry every 1 steps and .* every 10"):
        first_divergence(tmp_path / "1", tmp_path / "10")


def test_a_long_ledger_is_bisected_and_not_read(tmp_path, monkeypatch):
    num, at = 20_000, 13_579
    write_ledger(tmp_path / "a", HEADER, lines_of(num))
    everything = [*SOURCES, "ids", "batches"]
    write_ledger(tmp_path / "b", HEADER, lines_of(num, at, everything))
    read: list[int] = []
    plain = ledger.parse_line
    monkeypatch.setattr(
        ledger_diff, "parse_line", lambda *given: (read.append(1), plain(*given))[1]
    )
    assert first_divergence(tmp_path / "a", tmp_path / "b").step == at
    parted = len(read)
    assert first_divergence(tmp_path / "a", tmp_path / "a").entries == num
    size = (tmp_path / "a").stat().st_size
    # Two lines at each halving of the file, the headers, and what is read on from the parting: of that
    # only the loss stays equal here, so the most that is ever followed.
    assert len(read) - parted <= 2 * math.ceil(math.log2(size)) + 8
    assert parted <= 2 * math.ceil(math.log2(size)) + 8 + 2 * ledger_diff._FOLLOWED


# ------------------------------------------------------------------ what is hashed


@dataclass
class OwnBatch:
    inputs: Any
    note: str = ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (np.zeros(2), np.array([0.0, -0.0])),
        ({"x": torch.ones(2)}, {"y": torch.ones(2)}),
        ([torch.ones(2), "a"], [torch.ones(2), "b"]),
        (OwnBatch(torch.zeros(2)), OwnBatch(torch.ones(2))),
        (OwnBatch(torch.zeros(2), "a"), OwnBatch(torch.zeros(2), "b")),
        ([np.float32(1)], [np.float32(2)]),
        (np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02"], "M8[D]")),
    ],
    ids=range(9),
)
def test_batches_that_differ_have_other_links(one, other):
    assert extend_chain("", one) != extend_chain("", other)
    assert extend_chain("", one) == extend_chain("", one)
    assert extend_chain("before", one) != extend_chain("", one)


def test_a_batch_that_holds_itself_has_a_link_too():
    batch = OwnBatch(torch.zeros(2))
    batch.note = batch  # type: ignore[assignment]
    assert extend_chain("", batch) == extend_chain("", batch)


def test_strides_of_a_batch_do_not_count():
    batch = torch.arange(6.0).reshape(2, 3)
    assert extend_chain("", batch.T) == extend_chain("", batch.T.contiguous())


def test_streams_are_held_one_by_one():
    states = {
        "weights": {"w": np.ones(2)},
        "streams": {"torch/key": 1, "torch/state": np.zeros(2), "own/key": 2},
    }
    holds = state_digests(states)
    assert list(holds) == ["weights", "streams/own", "streams/torch"]
    other = state_digests({**states, "streams": {**states["streams"], "own/key": 3}})
    assert [n for n in holds if holds[n] != other[n]] == ["streams/own"]


def test_ten_lines_of_python_are_enough_to_check_one(tmp_path):
    """What docs/ledgers.md says works without bygones, and sees a change."""
    page = (Path(__file__).parents[2] / "docs" / "ledgers.md").read_text()
    program = page.split("```python\n")[1].split("```")[0]
    write_ledger(tmp_path / "run.jsonl", HEADER, lines_of(5))
    said: list[str] = []
    given = {"path": str(tmp_path / "run.jsonl"), "print": said.append}
    exec(program.replace('"run.jsonl"', "path"), given)
    assert said == ["whole: 5 entries"]
    lines = (tmp_path / "run.jsonl").read_text().splitlines(keepends=True)
    changed = json.loads(lines[2])
    changed["loss"] = 0.0
    lines[2] = json.dumps(changed, sort_keys=True, separators=(",", ":")) + "\n"
    (tmp_path / "run.jsonl").write_text("".join(lines))
    with pytest.raises(AssertionError):
        exec(program.replace('"run.jsonl"', "path"), given)
