"""Notes of a resume check: where the comparison begins, and what limits it."""

from __future__ import annotations

from bygones.attach.isolation.environment import describe_circumstances
from bygones.audit.resuming.costs import SeedResult


def write_notes(one: SeedResult) -> list[str]:
    assert one.resumed.start is not None
    notes = []
    start = one.resumed.start
    if start.placed_by != "weights":
        reason = {
            "some weights": "where most of them are equal",
            "moments": "where its optimizer's state is equal",
            "save": "where the interrupted run saved last",
        }[start.placed_by]
        notes.append(
            f"The resumed run's weights are not, to the bit, those of any boundary of the uninterrupted run; "
            f"it is compared with boundary {start.step}, {reason}."
        )
    if one.resumed.continuation.ended:
        steps = len(one.resumed.continuation.losses)
        notes.append(
            f"The resumed run {one.resumed.continuation.ended} after {steps} steps, before the "
            f"uninterrupted run's boundary {one.end} was reached."
        )
    if one.ceiling and not any(one.ceiling.values()):
        notes.append(
            "There is no ceiling: another seed ends in the same function, to the bit. Let the seed reach the "
            "script by {seed} in its arguments or by --seed-env."
        )
    notes += one.notes
    notes.append(describe_circumstances(is_job=bool(one.whole.ranks)))
    if one.whole.why_no_inputs:
        notes.append(f"The function is not observed: {one.whole.why_no_inputs}")
    return notes
