"""Verdict on written files: whether the resumed run leaves the same files as the uninterrupted one.

What training does not read (an average that is only evaluated, the best weights) may be lost without a trace
in the run, and still differ in the last checkpoint. A difference counts only if two uninterrupted runs agree
there: a time, a path or a folder that is named anew is not decided by the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bygones.audit.resume_verdicts import Verdict
from bygones.audit.resuming.written_files import Difference, compare_files, differing_line
from bygones.core.text import format_count, join_names

ROW = "written files"


@dataclass(frozen=True)
class FinishedRuns:
    """Two runs that went to the end of their script.

    whole, resumed   their folders
    run_again        runs the script uninterrupted once more, and returns its folder
    shapes           of the trained arrays and buffers
    overrun          whether it takes more steps than the uninterrupted one
    """

    whole: Path
    resumed: Path
    run_again: Callable[[], Path]
    shapes: frozenset[tuple[int, ...]]
    overrun: bool = False


def judge_files(verdicts: Sequence[Verdict], runs: FinishedRuns) -> tuple[list[Verdict], list[str]]:
    """Return the verdicts with a row on the files (none if there are none), and notes on what was printed."""
    if runs.overrun:
        why = "not compared: the resumed run trains on after the last step of the uninterrupted one"
        return [*verdicts, Verdict(ROW, "ABSTAIN", why)], []
    common, found = compare_files(runs.whole, runs.resumed, runs.shapes)
    found = [one for one in found if one.kind != "text"]
    line = differing_line(runs.whole, runs.resumed, runs.whole)
    lost = [v.source for v in verdicts if v.outcome == "FAIL"]
    if lost:  # what is printed differs for it, and with the time of day
        line = None
    elif found or line:
        again = runs.run_again()
        varying = set(map(_place, compare_files(runs.whole, again, runs.shapes)[1]))
        found = [one for one in found if not {_place(one), (one.file, "")} & varying]
        line = differing_line(runs.whole, runs.resumed, again)
    verdict = _verdict(common, found, lost)
    return [*verdicts, *([] if verdict is None else [verdict])], _note(line)


def _place(difference: Difference) -> tuple[str, str]:
    return difference.file, difference.key


def _verdict(common: Collection[str], found: list[Difference], lost: list[str]) -> Verdict | None:
    weights = [one for one in found if one.kind == "weights"]
    if lost and found:
        where = join_names((one.place for one in weights or found), limit=2)
        why = f"differ, which may follow from {join_names(lost, limit=3)} ({where})"
        return Verdict(ROW, "ABSTAIN", why)
    if weights:
        leaves = join_names(map(_with_words, weights), limit=3)
        why = (
            "weights in them differ from those that two uninterrupted runs write, though the run goes on "
            "alike: they are kept or computed aside of training, and not restored"
        )
        return Verdict(ROW, "FAIL", why, leaves)
    unread = [one.file for one in found if one.kind == "bytes"]
    values = [one for one in found if one.kind == "value"]
    if values:
        leaves = join_names(map(_with_words, values), limit=3)
        why = (
            "no weights in them differ; other values do, which nothing that was compared depends on"
        )
        return Verdict(ROW, "ABSTAIN", why, leaves)
    if unread:
        why = "some differ, and cannot be read without running code from them"
        return Verdict(ROW, "ABSTAIN", why, join_names(unread, limit=3))
    if not common or lost:
        return None
    number = format_count(len(common), "file")
    return Verdict(ROW, "PASS", f"{number} of both runs hold the same, key by key")


def _with_words(difference: Difference) -> str:
    return f"{difference.place} {difference.words}".rstrip()


def _note(line: tuple[str, str] | None) -> list[str]:
    if line is None:
        return []
    mine, theirs = (text if len(text) < 80 else f"{text[:77]}..." for text in line)
    return [f"What is printed differs: {theirs!r} instead of {mine!r}."]
