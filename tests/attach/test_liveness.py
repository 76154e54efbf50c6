"""Which variables a round of a training loop takes over from the one before."""

# pyright: reportPossiblyUnboundVariable=false

import sys

import pytest

from bygones.attach.sources.liveness import carried_names, live_at_loop_head

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


@pytest.mark.parametrize(
    ("run", "carried", "not_carried"),
    [
        (lambda: nested([[1], [2]]), {"hidden", "total"}, {"batch", "loss", "item", "pair"}),
        (endless, {"step", "kept"}, {"batch"}),
        (closing, {"count"}, set()),
        (once, set(), {"batch"}),
    ],
    ids=["nested loops", "while", "closure", "no loop"],
)
def test_what_is_read_before_it_is_assigned_is_carried(run, carried, not_carried):
    run()
    assert carried <= here[0]
    assert not not_carried & here[0]


def test_globals_that_functions_name_are_carried():
    assert "here" in carried_names([sys._getframe()])
