"""The loops that enclose a step, and when a new round of one begins."""

import sys
from pathlib import Path

import pytest

from bygones.attach.training_loop import LoopWatch, enclosing_loops

HERE = Path(__file__)


def step(seen):
    for _ in range(2):  # has ended when the loops are looked for
        pass
    seen.append(enclosing_loops(HERE))


def test_loops_around_a_call_are_found_outermost_first():
    seen = []
    for _ in range(1):
        while not seen:
            step(seen)
    mine = [loop for loop in seen[0] if loop.code[1].startswith("test_loops_around")]
    assert [loop.start for loop in mine] == sorted(loop.start for loop in mine)
    lines = HERE.read_text().splitlines()
    assert [lines[loop.start - 1].split()[0] for loop in mine] == ["for", "while"]
    assert not any(loop.code[1] == "step" for loop in seen[0])


def train(loops, events, watch):
    for epoch in range(2):
        for number in (1, 2):
            events.append((epoch, number))
            if not loops:
                loops += [one for one in enclosing_loops(HERE) if one.code[1] == "train"]
            elif watch:
                watch[0].start()


def test_heads_are_reported_by_level_while_it_watches():
    before = sys.gettrace()
    if before is not None:
        pytest.skip("something else traces this process")
    loops, watch, events = [], [], []
    train(loops, [], watch)
    assert len(loops) == 2
    watch.append(LoopWatch(tuple(loops), lambda level: events.append(level)))
    train(loops, events, watch)
    watch[0].stop()
    assert sys.gettrace() is None
    assert events == [(0, 1), 1, (0, 2), 1, 0, 1, (1, 1), 1, (1, 2), 1, 0]
    train(loops, [], [])
    assert len(events) == 11


def test_a_process_that_something_else_traces_is_left_alone():
    def tracer(*_):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        watch = LoopWatch((), print)
        watch.start()
        assert sys.gettrace() is tracer
        watch.stop()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
