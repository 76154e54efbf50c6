"""Records of segments: the keys on disk, and an older record read."""

from __future__ import annotations

from bygones.store.segment_record import BuiltRecord, PastRecord, SegmentRecord

SHARED = {"start", "stop", "steps", "probe", "observed", "snapshot"}


def test_each_record_has_its_keys_on_disk():
    recipes = SegmentRecord(2, 5, (2, 5), "probe", "object", "snapshot", None, "logits")
    scripts = SegmentRecord(2, 5, (5,), "probe", "object", state="", failed="")
    past = PastRecord(["a", "b"], "state", "weights", ["0x0p+0"])
    assert recipes.to_dict().keys() == SHARED | {"diverged_at", "kind"}
    assert scripts.to_dict().keys() == SHARED | {"diverged_at", "state", "failed"}
    assert BuiltRecord("built").to_dict().keys() == SHARED | {"built"}
    assert past.to_dict().keys() == SHARED | {"diverged_at", "chain", "state", "weights", "losses"}


def test_what_is_read_is_written_again():
    for record in (
        SegmentRecord(2, 5, (2, 5), "probe", "object", "snapshot", 3, "values"),
        SegmentRecord(2, 5, (5,), "probe", "object", state="digest", failed="was killed"),
    ):
        assert SegmentRecord.from_dict(record.to_dict()) == record
        assert record.to_dict()["steps"] == list(record.steps)
    past = PastRecord(["a", "b"], "state", "weights", ["0x0p+0"])
    assert PastRecord.from_dict(past.to_dict()) == past


def test_an_initial_state_reads_as_a_segment_without_steps():
    past = PastRecord(["a"], "state", "weights", []).to_dict()
    for record in (BuiltRecord("built").to_dict(), past):
        read = SegmentRecord.from_dict(record)
        assert (read.start, read.stop, read.steps, read.observed) == (0, 0, (), None)
