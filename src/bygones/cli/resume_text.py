"""Text of a resume check: a headline, a sentence for each failure, a table of verdicts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from rich.table import Table

from bygones.audit.resume_check import ResumeReport
from bygones.audit.resume_verdicts import Verdict
from bygones.audit.resuming.changed_settings import describe_changed
from bygones.audit.resuming.costs import Cost
from bygones.cli import terminal
from bygones.core.text import join_names

_DOT = re.compile(r"\.(?![^\[]*\])")  # not within brackets, where it may be part of a key


def print_check(check: ResumeReport) -> None:
    """Print all of it to the terminal; in a workflow of GitHub, also what marks the script."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotate(check):
            print(line)
    terminal.out.print(headline(check))
    if check.failed == ("everything",):  # nothing was compared
        return
    for sentence in sentences(check):
        terminal.out.print(sentence)
    terminal.out.print(as_table(check))
    for sentence in (*advice(check), *other_settings(check)):
        terminal.out.print(sentence)


def annotate(check: ResumeReport) -> Iterator[str]:
    """Yield a line for each failure as a workflow command of GitHub, which marks the script with it."""
    file = next((word for word in check.script.split() if word.endswith(".py")), check.script)
    for verdict in check.verdicts:
        if verdict.outcome == "FAIL":
            remedy = check.remedies.get(verdict.source)
            said = [f"{_why(verdict).rstrip('.')}."]
            if remedy is not None and remedy.save:
                said.append(f"Save {'; '.join(remedy.save)} and load {'; '.join(remedy.load)}.")
            title = _escape(f"Lost on resuming: {verdict.source}", ":,")
            yield f"::error file={_escape(file, ':,')},title={title}::{_escape(' '.join(said))}"


def _escape(text: str, also: str = "") -> str:
    """Write what a workflow command would take for its own signs as codes."""
    for sign in ("%", "\r", "\n", *also):
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


def headline(check: ResumeReport) -> str:
    """Return the result in one sentence."""
    where = (
        f"interrupted after step {check.interrupted_at}, resumed from its checkpoint of step {check.start} "
        f"and compared up to step {check.until}"
    )
    if check.failed == ("everything",):
        why = check.verdicts[0].why.rstrip(".")
        return f"{check.script}, interrupted after step {check.interrupted_at} and started again: {why}."
    rows = {
        "second resume": "resumed a second time, it is another run",
        "written files": "it goes on as if it had never stopped, but writes other weights",
    }
    if len(check.failed) == 1 and check.failed[0] in rows:
        return f"{check.script}, {where}: {rows[check.failed[0]]}."
    if check.failed:
        lost = [_named(check, v) for v in check.verdicts if v.outcome == "FAIL"]
        return f"{check.script}, {where}: its checkpoint does not carry {_listed(lost)}."
    passed = sum(v.outcome == "PASS" and v.source not in rows for v in check.verdicts)
    open_ = [_short(v.source) for v in check.verdicts if v.outcome == "ABSTAIN"]
    rest = f" Not shown either way: {join_names(open_, limit=6)}." if open_ else ""
    return (
        f"{check.script}, {where}: it goes on as if it had never stopped, to the bit. Restored and needed: "
        f"{passed} sources.{rest}"
    )


def sentences(check: ResumeReport) -> Iterator[str]:
    """Yield a sentence for each failure with its effect on the function, then what the window crossed."""
    for verdict in check.verdicts:
        if verdict.outcome == "FAIL":
            yield _failure(check, verdict)
    crossed = ", ".join(f"{name}: {number}" for name, number in check.crossed.items())
    yield f"The steps compared crossed {crossed}."
    yield from check.notes


def as_table(check: ResumeReport) -> Table:
    """Make a table of verdicts with their reasons; sources with equal rows share one."""
    said: dict[tuple[str, ...], list[str]] = {}
    for verdict in check.verdicts:
        rest = (verdict.outcome, _why(verdict), _number(verdict.lost), _number(verdict.fresh))
        said.setdefault(rest, []).append(_named(check, verdict))
    rows = [
        [outcome, "\n".join(dict.fromkeys(names)), why, lost, fresh]
        for (outcome, why, lost, fresh), names in said.items()
    ]
    columns = ("verdict", "source", "why", "as resumed", "made new")
    title = "How far the function moves, by source"
    return terminal.table(title, columns, rows, wrapped=columns.index("why"))


def advice(check: ResumeReport) -> Iterator[str]:
    """Yield a line for each failure whose remedy is known: what to write."""
    for source, remedy in check.remedies.items():
        yield f"To carry {_short(source)}: {remedy}."


def other_settings(check: ResumeReport) -> Iterator[str]:
    """Yield sentences on a resume under other settings, if one was asked for."""
    if check.settings is not None:
        yield from describe_changed(check.settings)


def _failure(check: ResumeReport, verdict: Verdict) -> str:
    costs = [_cost(check, cost) for cost in check.costs if cost.source == verdict.source]
    said = f"FAIL {_named(check, verdict)}: {_why(verdict)}."
    if not costs:
        return f"{said} What that costs was not measured."
    losses = (
        "no training loss shows it"
        if verdict.first_loss is None
        else f"the training loss shows it from step {verdict.first_loss} on"
    )
    return f"{said} At step {check.until}, {'; '.join(costs)}; {losses}."


def _cost(check: ResumeReport, cost: Cost) -> str:
    """Return an effect with its interval, seed pairs, floor and ceiling."""
    if not cost.module and not any(cost.by_seed):
        others = [c for c in check.costs if c.source == cost.source and c.module]
        other = "" if others else " (what is evaluated with it may be)"
        return f"the trained model is not moved{other}, nor by the sham"
    what = "the function is moved by" if not cost.module else f"that of {cost.module} by"
    if cost.estimate is None:
        size = f"{cost.unit} {cost.by_seed[0]:.2g} (one seed pair, no interval: try --seeds 0-7)"
    else:
        size = (
            f"{cost.unit} {cost.estimate.value:.2g} [{cost.estimate.low:.2g}, {cost.estimate.high:.2g}] "
            f"({len(cost.by_seed)} seed pairs, paired t)"
        )
    if cost.ceiling:
        share = (sum(cost.by_seed) / len(cost.by_seed)) / cost.ceiling
        size += f", {share:.0%} of what another seed moves it ({cost.ceiling:.2g})"
    return f"{what} {size}, the sham by {check.floor:g}"


def _number(moved: Mapping[str, float] | None) -> str:
    """Write how far the trained model moves; if it does not, how far the model beside it that moves most."""
    if not moved or "" not in moved:
        return ""
    most = max(moved, key=lambda name: moved[name])
    return f"{moved['']:.2g}" if moved[""] or not moved[most] else f"{moved[most]:.2g} ({most})"


def _why(verdict: Verdict) -> str:
    """Return the reason with the leaves."""
    return verdict.why.rstrip(".") + (f" ({verdict.leaves})" if verdict.leaves else "")


def _named(check: ResumeReport, verdict: Verdict) -> str:
    """Return the name of a source, and of a job the ranks in which it is not as it was.

    Where these are all ranks, as with what all hold alike, they are not listed.
    """
    if not 0 < len(verdict.ranks) < check.processes:
        return _short(verdict.source)
    noun = "rank" if len(verdict.ranks) == 1 else "ranks"
    return f"{_short(verdict.source)} of {noun} {join_names(verdict.ranks)}"


def _short(source: str) -> str:
    """Shorten a long dotted path to its first and its last two parts."""
    pieces = _DOT.split(source)
    long = len(source) > 40 and len(pieces) > 3
    return ".".join([pieces[0], "…", *pieces[-2:]]) if long else source


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
