"""What two runs left in their folders: read without running code, and judged only where the seed decides."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from bygones.audit.resume_verdicts import Verdict
from bygones.audit.resuming.files_verdict import ROW, FinishedRuns, judge_files
from bygones.audit.resuming.written_files import compare_files, differing_line, read_values

SHAPES = frozenset({(2, 3)})
GENERATOR = torch.Generator().get_state()


class Ran:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.fixture
def run(tmp_path):
    """Makes the folder of a run that wrote and printed something."""

    def make(name: str, printed: str = "", **files: object) -> Path:
        place = tmp_path / name / "files"
        place.mkdir(parents=True)
        (tmp_path / name / "stdout.txt").write_text(printed)
        for file, held in files.items():
            if isinstance(held, dict):
                torch.save(held, place / f"{file}.pt")
            else:
                (place / f"{file}.json").write_text(json.dumps(held))
        return tmp_path / name

    return make


def judge(whole, resumed, again, *verdicts, overrun=False):
    runs = FinishedRuns(whole, resumed, lambda: again, SHAPES, overrun)
    *_, row = [None, *judge_files(verdicts, runs)[0]]
    return row


def test_a_changed_average_is_named_by_its_key(run):
    whole = run("whole", last={"ema": {"w": torch.zeros(2, 3)}, "draws": GENERATOR, "n": 3})
    other = torch.ones(2, 3)
    resumed = run("resumed", last={"ema": {"w": other}, "draws": GENERATOR + 1, "n": 4})
    found = compare_files(whole, resumed, SHAPES)[1]
    assert [(d.place, d.kind, d.words) for d in found] == [
        ("last.pt: ema/w", "weights", ""),
        ("last.pt: n", "value", "4 instead of 3"),
    ]
    row = judge(whole, resumed, whole)
    assert (row.source, row.outcome, row.leaves) == (ROW, "FAIL", "last.pt: ema/w")
    row = judge(whole, resumed, resumed)  # two uninterrupted runs differ there too
    assert row.outcome == "PASS"
    row = judge(whole, resumed, whole, Verdict("ema", "FAIL", "lost"))
    assert row.outcome == "ABSTAIN"
    assert "may follow from ema" in row.why


@pytest.mark.parametrize("held", [{}, {"ema": None}], ids=["missing", "None"])
def test_weights_that_are_not_written_differ(run, held):
    row = judge(
        whole := run("whole", last={"ema": torch.zeros(2, 3)}), run("other", last=held), whole
    )
    assert row.outcome == "FAIL"


def test_logs_and_settings_are_no_failure(run):
    whole = run("whole", notes=[1, 2], last={"log": torch.zeros(9), "options": {"resume": False}})
    resumed = run("resumed", notes=[2], last={"log": torch.zeros(4), "options": {"resume": True}})
    row = judge(whole, resumed, whole)
    assert row.outcome == "ABSTAIN"
    assert "options/resume True instead of False" in row.leaves


def test_a_file_with_code_in_it_is_compared_by_bytes_and_not_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, resumed = run("whole"), run("resumed")
    (whole / "files" / "all.pkl").write_bytes(pickle.dumps(Ran()))
    (resumed / "files" / "all.pkl").write_bytes(pickle.dumps([Ran()]))
    assert read_values(whole / "files" / "all.pkl") is None
    row = judge(whole, resumed, whole)
    assert row.outcome == "ABSTAIN"
    assert "cannot be read without running code from them" in row.why
    assert row.leaves == "all.pkl"
    assert not Path("ran").exists()


def test_a_run_that_trains_on_is_not_compared(run):
    whole = run("whole", last={"ema": torch.zeros(2, 3)})
    resumed = run("resumed", last={"ema": torch.ones(2, 3)})
    assert judge(whole, resumed, whole, overrun=True).outcome == "ABSTAIN"


def test_printed_lines_are_paired_from_the_end(run):
    whole = run("whole", "step 1: 0.5\nstep 2: 0.4\nscore 0.9, 3 s\n")
    resumed = run("resumed", "resumed\nstep 2: 0.3\nscore 0.8, 5 s\n")
    assert differing_line(whole, resumed, whole) == ("step 2: 0.4", "step 2: 0.3")
    again = run("again", "step 1: 0.5\nstep 2: 0.7\nscore 0.9, 4 s\n")
    assert differing_line(whole, resumed, again) is None
    assert differing_line(whole, whole, whole) is None
