"""However a command ends, there is a sentence; and what it writes is whole, or what was there before."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.commands import run_here
from tests.helpers.study_recipes import plain

from bygones import Parts, check_fork
from bygones.attach.isolation.tampering import describe_tampering
from bygones.cli import process
from bygones.cli.load import load_study
from bygones.core.code_digest import source_digest
from bygones.core.errors import ForkError, LedgerError, RecipeError, StoreError
from bygones.core.files import scratch_beside, whole_folder, write_whole
from bygones.publish.bundle import archive
from bygones.store.ledger import Writer, read_ledger
from bygones.store.ledger_diff import first_divergence
from bygones.training.run import Run

NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ------------------------------------------------------------------ code that leaves


@pytest.mark.parametrize(
    "leave", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"]
)
@pytest.mark.parametrize("place", ["{}\ndef study(): ...", "def study():\n    {}"])
def test_a_study_file_that_leaves_python_is_told_so(leave, place, tmp_path):
    (tmp_path / "leaves.py").write_text(place.format(leave))
    with (
        process.ends_in_a_sentence([]),
        pytest.raises(RecipeError, match=r"leaves\.py.* called sys\.exit\("),
    ):
        load_study(str(tmp_path / "leaves.py"))


def leaves_when_built(seed: int) -> Parts:
    sys.exit(7)


def leaves_in_a_step(seed: int) -> Parts:
    made = plain(seed)
    step = made.train_step

    def leave(parts: Parts, batch: Any) -> Any:
        return os._exit(7) if parts.cursor.position == 3 else step(parts, batch)

    made.train_step = leave
    return made


def test_a_recipe_and_a_step_that_leave_python_are_told_so():
    with process.ends_in_a_sentence([]):
        with pytest.raises(
            RecipeError, match=r"leaves_when_built called sys\.exit\(7\) for seed 0"
        ):
            Run(leaves_when_built, 0)
        with pytest.raises(RecipeError, match=r"called sys\.exit\(7\) at step 2, seed 0"):
            Run(leaves_in_a_step, 0).advance(5)
    assert os._exit is process.leave


@pytest.mark.parametrize("raised", ["GeneratorExit", "BaseException('odd')"])
def test_a_study_that_raises_what_nobody_catches_is_told_so(raised, tmp_path, monkeypatch, capsys):
    (tmp_path / "odd.py").write_text(f"def study(): raise {raised}")
    said = run_here(monkeypatch, capsys, "run", tmp_path / "odd.py")
    assert said.code == 3
    assert f"the code that was run raised {raised.partition('(')[0]}" in said.err


def test_sigterm_ends_in_a_sentence_and_children_know_nothing_of_it():
    with process.ends_in_a_sentence([]):
        pid = os.fork()
        if pid == 0:  # as without bygones: SIGTERM kills, and os._exit exits
            alike = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and os._exit is process.leave
            process.leave(0 if alike else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with pytest.raises(process.Terminated):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_a_script_leaves_behind_is_ended_with_the_command():
    """A child of a child, in a session of its own, as a program that a script starts may be."""
    orphan = (
        "import subprocess; quiet = subprocess.DEVNULL; command = ['sleep', '600'];"
        "print(subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True).pid)"
    )
    with process.ends_in_a_sentence(["script", "run", "--", "a script"]):
        said = subprocess.run([sys.executable, "-c", orphan], capture_output=True, text=True)
    pid = int(said.stdout)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or ") Z " in state.read_text()


def of_its_own_clock(seed: int) -> Parts:
    made = plain(seed)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter += 1e-6 * NOW[0]
    NOW[1] -= 1
    NOW[0] += NOW[1] == 0
    return made


NOW = [0, 0]


def test_a_run_that_its_seed_does_not_decide_is_noticed_by_the_fork_check():
    """A clock that stands still while a fork and its original are compared, and ticks later."""
    NOW[:] = [0, 2]
    with pytest.raises(
        ForkError, match=r"not decided by its seed: seed 0, trained twice to step 4"
    ):
        check_fork(of_its_own_clock, at=[2], until=4)


def test_a_script_that_took_what_bygones_needs_is_named_as_the_cause(monkeypatch):
    assert describe_tampering(ValueError()) == ""
    assert "files open" in describe_tampering(OSError(errno.EMFILE, "Too many open files"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", lambda: 0)
        patch.delattr(builtins, "ascii")
        assert "replaced or removed builtins.ascii, os.fork" in describe_tampering(ValueError())


def test_a_script_without_the_garbage_collectors_list_is_named_as_the_cause(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(gc, "get_objects", None)
        assert "replaced or removed gc.get_objects" in describe_tampering(TypeError())


def test_what_scripts_replace_as_a_matter_of_course_is_not_named_as_the_cause(monkeypatch):
    monkeypatch.setattr(builtins, "print", lambda *values: None)  # of all ranks but the first
    assert describe_tampering(ValueError()) == ""
    assert describe_tampering(RecursionError()) == ""
    sys.setrecursionlimit(sys.getrecursionlimit() - 50)
    try:
        assert "recursion limit" in describe_tampering(RecursionError())
    finally:
        sys.setrecursionlimit(sys.getrecursionlimit() + 50)


# ------------------------------------------------------------------ output


def test_output_is_utf8_whatever_the_locale(monkeypatch):
    plain_text = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", plain_text)
    process.write_utf8()
    print("±2 … \ud800")
    assert plain_text.buffer.getvalue() == "±2 … \\ud800\n".encode()  # type: ignore[attr-defined]


def test_a_reader_that_closes_the_pipe_ends_the_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-P", "-m", "bygones", "--version"]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_source_is_read_in_the_encoding_that_it_declares(tmp_path):
    (tmp_path / "a.py").write_bytes("name = 'é'\n".encode())
    (tmp_path / "b.py").write_bytes(b"# coding: latin-1\nname = '\xe9'\n")
    assert source_digest(tmp_path / "a.py") == source_digest(tmp_path / "b.py")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "digits", "--store", ""], 6, "place of a store is empty"),
        (["run", "digits", "--store", "://x"], 6, "'://x' is no place for a store"),
        (["run", "digits", "--store", "memory://x"], 6, "gone as soon as this command ends"),
        (["report", "memory://x"], 6, "gone as soon as this command ends"),
        (["report", "x" * 300], 6, "File name too long"),
        (["ledger", "diff", "x" * 300, "y"], 9, "File name too long"),
        (["bundle", "verify", "x" * 300], 6, "File name too long"),
    ],
    ids=str,
)  # fmt: skip
def test_a_place_that_cannot_be_is_one_sentence(arguments, code, said, monkeypatch, capsys):
    found = run_here(monkeypatch, capsys, *arguments)
    assert found.code == code
    assert said in found.err
    assert "Traceback" not in found.err


# ------------------------------------------------------------------ whole, or as before


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_whole(path, "the first")
    for name in ("replace", "fdopen"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(NO_ROOM))
            with pytest.raises(
                StoreError, match=r"page\.html: cannot be written: No space left.*as it was"
            ):
                write_whole(path, "the second")
        assert path.read_text() == "the first"
        assert list(tmp_path.iterdir()) == [path]
    write_whole(path, "the second …")
    assert path.read_bytes() == "the second …".encode()


def _fill_half(folder: Path) -> None:
    (folder / "figures").mkdir()
    (folder / "figures" / "a.svg").write_text("half of")
    raise NO_ROOM


def test_a_folder_is_filled_beside_its_place(tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="No space left"), whole_folder(out) as folder:
        _fill_half(folder)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with whole_folder(out) as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.svg").write_text("all of it")
    assert (out / "figures" / "a.svg").read_text() == "all of it"
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_live_ones_is_not(tmp_path):
    with scratch_beside(tmp_path / "bundle") as mine:
        pid = os.fork()
        if pid == 0:
            with scratch_beside(tmp_path / "bundle") as folder:
                (folder / "half").write_text("a bundle")
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        left = [path for path in tmp_path.glob(".bygones-*") if path != mine]
        assert len(left) == 1
        with scratch_beside(tmp_path / "bundle") as other:
            assert sorted(tmp_path.glob(".bygones-*")) == sorted([mine, other])
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_on_a_full_disk_ends_after_a_whole_line(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    writer = Writer(path, {"run": "a"})
    writer.add({"step": 1})

    def half(file: Any, content: bytes) -> None:
        file.write(content[: len(content) // 2])
        raise NO_ROOM

    monkeypatch.setattr("bygones.store.ledger._write_all", half)
    with pytest.raises(LedgerError, match=r"a\.jsonl: No space left.*after a whole line"):
        writer.add({"step": 2})
    writer.close()
    read = read_ledger(path)
    assert ([entry["step"] for entry in read.entries], read.complete) == ([1], False)


def test_an_endless_line_is_refused_before_it_is_read_whole(tmp_path):
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(60 * 10**9)
    with pytest.raises(LedgerError, match="line 1: longer than any line"):
        read_ledger(tmp_path / "holes")
    with pytest.raises(LedgerError, match="longer than any line"):
        first_divergence(tmp_path / "holes", tmp_path / "holes")
    with (tmp_path / "a.jsonl").open("ab") as file:  # a header, and holes behind it
        with Writer(tmp_path / "b.jsonl", {"run": "a"}):
            pass
        file.write((tmp_path / "b.jsonl").read_bytes())
        file.truncate(60 * 10**9)
    with pytest.raises(LedgerError, match="longer than any line"):
        first_divergence(tmp_path / "a.jsonl", tmp_path / "a.jsonl")


def test_no_room_to_unpack_is_not_called_a_damaged_zip(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("abc")
    archive.write_zip(tmp_path / "files", tmp_path / "a.zip")

    def full(*_: Any) -> None:
        raise NO_ROOM

    monkeypatch.setattr(archive, "_extract", full)
    with (
        pytest.raises(StoreError, match=r"No space left.*TMPDIR"),
        archive.open_bundle(tmp_path / "a.zip"),
    ):
        pass


@pytest.mark.long
def test_the_fault_harness_finds_nothing_lost(tmp_path):
    """A ledger and a bundle, killed and without room at some of their file events."""
    harness = Path(__file__).parents[2] / "benchmarks" / "faults.py"
    command = [sys.executable, str(harness), "ledger", "bundle", "--every", "40", "--kills", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 wrong." in ran.stdout
