"""Which variables a round of a training loop takes over from the one before."""

# pyright: reportPossiblyUnboundVariable=false

import dis
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bygones.attach.sources.liveness import (
    carried_names,
    innermost_head,
    live_at_loop_head,
    live_before,
)

here: list[frozenset[str]] = []


def look() -> None:
    frame = sys._getframe(1)
    here[:] = [live_at_loop_head(frame.f_code, frame.f_lasti)]


def nested(pairs):
    hidden, total, last = None, 0, None
    for pair in pairs:
        hidden = None
        for item in pair:
            batch = item
            for _ in range(2):
                loss = batch
            hidden = (hidden, loss)
            if loss:
                last = loss
            look()
            total += 1
        print(loss)
    return hidden, total, last


def endless():
    step, kept = 0, []
    while True:
        batch = step
        look()
        kept.append(batch)
        step += 1
        if step == 3:
            return kept


def closing():
    count = 0

    def add():
        nonlocal count
        count += 1

    for _ in range(2):
        add()
        look()


def once():
    batch = 1
    look()
    return batch


def handling():
    rounds, seen, batches = 0, 0, iter([1, 2])
    for _ in range(3):
        try:
            batch = next(batches)
        except StopIteration:
            rounds += 1
            batches = iter([n for n in range(rounds)])
            batch = 0
        look()
        seen = batch
    return seen


def recovering():
    kept, step = 0, 0
    while step < 2:
        step += 1
        try:
            raise ValueError(step)
        except ValueError as error:
            batch = error
            look()
            kept += 1
    return kept, batch


@pytest.mark.parametrize(
    ("run", "carried", "not_carried"),
    [
        (lambda: nested([[1], [2]]), {"hidden", "total"}, {"batch", "loss", "item", "pair"}),
        (endless, {"step", "kept"}, {"batch"}),
        (closing, {"count"}, set()),
        (once, set(), {"batch"}),
        (handling, {"rounds", "batches"}, {"batch", "seen"}),
        (recovering, {"kept", "step"}, {"batch", "error"}),
    ],
    ids=["nested loops", "while", "closure", "no loop", "exception", "in a handler"],
)
def test_what_is_read_before_it_is_assigned_is_carried(run, carried, not_carried):
    run()
    assert carried <= here[0]
    assert not not_carried & here[0]


def test_globals_that_functions_name_are_carried():
    assert "here" in carried_names([sys._getframe()])


@pytest.mark.parametrize(
    ("opname", "argval", "after", "before"),
    [
        ("LOAD_FAST", "x", "", "x"),
        ("STORE_FAST", "x", "xy", "y"),
        ("LOAD_FAST_CHECK", "x", "", "x"),  # from 3.12
        ("LOAD_FAST_AND_CLEAR", "x", "", "x"),
        ("LOAD_FROM_DICT_OR_GLOBALS", "x", "", "x"),
        ("LOAD_FROM_DICT_OR_DEREF", "x", "", "x"),
        ("LOAD_FAST_LOAD_FAST", ("x", "y"), "", "xy"),  # from 3.13
        ("STORE_FAST_LOAD_FAST", ("x", "y"), "x", "y"),
        ("STORE_FAST_LOAD_FAST", ("x", "x"), "x", ""),
        ("STORE_FAST_STORE_FAST", ("x", "y"), "xyz", "z"),
        ("LOAD_FAST_BORROW", "x", "", "x"),  # from 3.14
        ("LOAD_FAST_BORROW_LOAD_FAST_BORROW", ("x", "y"), "", "xy"),
        ("LOAD_FAST_OF_TOMORROW", ("x", "y"), "", "xy"),
        ("LOAD_ATTR", "x", "y", "y"),
        ("IMPORT_NAME", "x", "x", "x"),
        ("LOAD_SMALL_INT", 3, "x", "x"),
    ],
)
def test_instructions_of_later_versions_are_known(opname, argval, after, before):
    one: Any = SimpleNamespace(opname=opname, argval=argval, opcode=-1)
    assert live_before(one, after) == {*before}


def test_what_has_a_variable_and_is_not_known_counts_as_a_read():
    one: Any = SimpleNamespace(opname="FOLD_LOCAL", argval="x", opcode=dis.opmap["LOAD_FAST"])
    assert live_before(one, "y") == {"x", "y"}


def test_a_handler_that_jumps_back_into_a_round_begins_none():
    """From 3.12 on a handler may lie after all other code."""
    jump = "JUMP_BACKWARD"
    code: list[Any] = [
        SimpleNamespace(opname=name, argval=to, opcode=dis.opmap[name], offset=2 * index)
        for index, (name, to) in enumerate(
            [
                ("RESUME", 0),
                ("FOR_ITER", 10),
                ("RAISE_VARARGS", 1),
                ("NOP", None),
                (jump, 2),
                ("RETURN_VALUE", None),
                ("PUSH_EXC_INFO", None),
                (jump, 6),
            ]
        )
    ]
    place = {one.offset: index for index, one in enumerate(code)}
    assert innermost_head(code, place, {2: [6]}, at=12) == 1


def test_a_variable_of_a_modules_comprehension_hides_none_of_its_own():
    """From 3.12 on a comprehension is part of the code around it."""
    source = "for step in [1]:\n    batch = [x for x in [2]]\n    x = batch\n    look()"
    exec(compile(source, "module", "exec"), {"look": look})
    assert here[0] == {"look"}
