"""Print for people: progress, tables and sentences; plain text if the output is not a terminal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bygones.core.errors import StoreError

if TYPE_CHECKING:
    from bygones.analysis.designs import Design
    from bygones.publish.report.atlas import Entry
    from bygones.scripts.plan import ScriptPlan
    from bygones.store.contracts import Contracts
    from bygones.study.plan import Plan


_ROOMY = 110  # columns from which there is room for a digest
_PIPED = 10_000  # columns of output that goes to no terminal: nothing is wrapped there


class _Console(Console):
    """A console that wraps only in a terminal, and leaves a closed pipe to the command line.

    rich itself would take 80 columns for a pipe, and exit with 1 where its reader has gone.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, soft_wrap=True)

    @property
    def size(self) -> ConsoleDimensions:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().size if self.is_terminal else ConsoleDimensions(_PIPED, 25)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(stderr=True)  # for people
out = _Console()  # for results, which may be piped


def columns() -> int | None:
    """Return how many columns a table may take: those of the terminal, None where output is piped."""
    return out.width if out.is_terminal else None


@contextmanager
def progress(
    planned: Plan, title: str, every: float = 0.5
) -> Iterator[Callable[[Plan], None] | None]:
    """Show progress over the steps that are left, read from the store every `every` seconds.

    A bar in a terminal, else a line for each tenth. Yields a function to call with a plan that replaces
    this one, or None if nothing is left to train.
    """
    if not planned.seeds_left:
        console.print(f"{title}: everything is stored already; nothing to train.")
        yield None
        return
    over, now, said = threading.Event(), [planned], [0]

    def follow(newer: Plan) -> None:
        console.print(f"{title}: {newer.choice.why} {newer.steps_left:,} steps to train.")
        now[0], said[0] = newer, 0

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=planned.steps_left)

            def show() -> None:
                bar.update(task, completed=now[0].steps_done(), total=now[0].steps_left)

            watcher = _watch(over, every, show)
            try:
                yield follow
                bar.update(task, completed=now[0].steps_left)
            finally:
                over.set()
                watcher.join()
    else:
        console.print(f"{title}: {planned.steps_left:,} steps to train.")

        def say() -> None:
            tenth = 10 * now[0].steps_done() // max(now[0].steps_left, 1)
            if said[0] < tenth < 10:
                said[0] = tenth
                console.print(f"{title}: {tenth * 10}% done.")

        watcher = _watch(over, every, say)
        try:
            yield follow
            console.print(f"{title}: done.")
        finally:
            over.set()
            watcher.join()


def _watch(over: threading.Event, every: float, look: Any) -> threading.Thread:
    def loop() -> None:
        pause = every
        while not over.wait(pause):
            began = time.perf_counter()
            with suppress(StoreError):  # the training process meets the same error and reports it
                look()
            pause = max(
                every, 9 * (time.perf_counter() - began)
            )  # reading a remote store takes long

    watcher = threading.Thread(target=loop, daemon=True)
    watcher.start()
    return watcher


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], wrapped: int = -1
) -> Table:
    """Make a table without lines; the column at index `wrapped` alone may be wrapped, at words."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        may_wrap = index == wrapped % len(columns)
        made.add_column(column, overflow="fold", no_wrap=not may_wrap)
    for row in rows:
        made.add_row(*row)
    return made


def print_sources(
    name: str, step: int, sources: Sequence[Mapping[str, Any]], *, as_json: bool
) -> None:
    """Print the sources of memory that a run carries across a step."""
    if as_json:
        print(json.dumps({"step": step, "sources": sources}, indent=2))
        return
    out.print(f"Memory that {name} carries across step {step}:")
    out.print(inventory_table(sources))


def print_job_sources(
    name: str,
    step: int,
    sources: Sequence[Mapping[str, Any]],
    findings: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Print the memory that a job carries across a step, with the ranks that hold it alike."""
    if as_json:
        print(json.dumps({"step": step, "sources": sources, "findings": findings}, indent=2))
        return
    print_sources(name, step, sources, as_json=False)
    for finding in findings:
        out.print(f"Finding: {finding}")


def print_plan(planned: Plan, lines: Sequence[str]) -> None:
    """Print a study's cost in sentences, then the memory found in its run."""
    for line in lines:
        out.print(line)
    out.print("Memory found in it:")
    out.print(inventory_table([source.to_dict() for source in planned.facts.sources or ()]))


def print_designs(found: Sequence[Design], num_seeds: int) -> None:
    """Print what each design takes for one half-width, judged by so many stored seeds."""
    rows = [
        (one.arm, one.metric, one.name, str(one.seeds), f"{one.steps:,}", f"± {one.half_width:.2g}")
        for one in found
    ]
    columns = ("arm", "in", "design", "seeds", "steps", "for")
    title = f"Which design pays, by {num_seeds} stored seeds (last horizon)"
    out.print(table(title, columns, rows))


def inventory_table(sources: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table of sources: class, visibility, lifetime of the carrier, leaves and size."""
    columns = ["source", "class", "seen in", "carrier lasts", "leaves", "size"]
    hashed = out.width >= _ROOMY and all("digest" in source for source in sources)
    shared = any("ranks" in source for source in sources)  # a job of several processes
    rows = [
        [
            source["name"],
            source["origin"],
            source["visibility"],
            source["lifetime"],
            str(source["leaves"]),
            size(source["bytes"]),
            *([source["digest"][:12]] if hashed else []),
            *([source["ranks"]] if shared else []),
        ]
        for source in sources
    ]
    columns += [*(["digest"] if hashed else []), *(["over the ranks"] if shared else [])]
    return table("", columns, rows, wrapped=3)


def print_terms(terms: Contracts) -> None:
    """Print both contracts: first what holds for the whole run, then each random stream."""
    from bygones.store.contracts import STREAM_COLUMNS, rows_of, stream_rows

    out.print(table("", ("contract", ""), rows_of(terms)))
    if terms.rng is not None:
        out.print(table("", STREAM_COLUMNS, stream_rows(terms.rng)))


def print_differences(found: Sequence[tuple[str, Any, Any]]) -> None:
    """Print the differences of two contracts, a line each."""
    from bygones.store.contracts import in_words

    if not found:
        out.print("The two contracts are equal.")
    for what, here, there in found:
        out.print(f"{what}: {in_words(here)} here, {in_words(there)} there")


def print_checklist(filled: Mapping[str, Any]) -> None:
    """Print the reporting checklist: each item's status, the record's answer, and why it is flagged."""
    from bygones.publish.checklist import headline_of

    rows = [
        (item["item"], item["status"], " ".join(filter(None, (item["answer"], item["why"]))))
        for item in filled["items"]
    ]
    out.print(f"{filled['study']}: {headline_of(filled)}.")
    out.print(table("", ("item", "status", "what the record says"), rows))


def script_lines(planned: ScriptPlan, num_workers: int) -> list[str]:
    """Describe what a script's study will run, and its cost, in sentences."""
    plan = planned.plan
    way, seconds = plan.facts.way, plan.steps_left * plan.seconds_a_step / num_workers
    findings = plan.facts.findings or ()
    return [
        f"{plan.study.name}: {len(plan.study.seeds)} seeds × {len(plan.arms)} arms (with control, sham and "
        f"matched nulls), fork at step {plan.study.fork_at}, followed to step {plan.study.end}. Seeded by "
        f"{planned.job.script.seeded_by}. Observed on {planned.job.inputs.came_from}.",
        way,
        f"Left to run: {plan.steps_left:,} steps, about {duration(seconds)} with {num_workers} "
        f"worker{'s' if num_workers > 1 else ''} ({plan.seconds_a_step * 1e3:.2f} ms a step, timed here), "
        f"besides what the script does before its first step.",
        *(f"Note: {finding}" for finding in findings),
        *([plan.note] if plan.note else []),
    ]


@contextmanager
def progress_of_seeds(planned: Plan) -> Iterator[Any]:
    """Yield a function that prints how many seeds are done; no thread, since the process will be forked."""
    left, done = len(planned.seeds_left), [0]
    if not left:
        console.print(f"{planned.study.name}: everything is stored already; nothing to run.")

    def on_seed(seed: int) -> None:
        done[0] += 1
        console.print(f"{planned.study.name}: {done[0]} of {left} seeds done.")

    yield on_seed


def plan_lines(planned: Plan, num_workers: int) -> list[str]:
    """Describe the cost of a recipe's study, in sentences."""
    from bygones.core.study_facts import describe_repeats

    study = planned.study
    saved = planned.steps_naive / max(planned.steps_shared, 1)
    seconds = planned.seconds_left(num_workers)
    return [
        f"{study.name}: {len(study.seeds)} seeds × {len(planned.arms)} arms (with control, sham and matched "
        f"nulls), fork at step {study.fork_at}, followed to step {study.end}.",
        *([f"Of these, {again}."] if (again := describe_repeats(study.repeats)) else []),
        f"Steps without sharing prefixes: {planned.steps_naive:,}. With sharing: {planned.steps_shared:,} "
        f"({saved:.2f} times fewer). Left to train: {planned.steps_left:,}.",
        f"Stored when finished: about {size(planned.bytes_total)}.",
        planned.choice.why,
        f"Time left: about {duration(seconds)} with {num_workers} worker{'s' if num_workers > 1 else ''} "
        f"({planned.seconds_a_step * 1e3:.2f} ms a seed's step, timed here).",
        *([planned.note] if planned.note else []),
    ]


def atlas_plan_line(name: str, planned: Plan, num_workers: int) -> str:
    """Describe what is left to train of one regime of the atlas, in a line."""
    what = f"{name}: {len(planned.study.seeds)} seeds × {len(planned.arms)} arms to step {planned.study.end}"
    if not planned.seeds_left:
        return f"{what}, everything is stored already."
    time = duration(planned.seconds_left(num_workers))
    lanes = f", {planned.contract.lanes} seeds a step" if planned.contract.lanes > 1 else ""
    return f"{what}, {planned.steps_left:,} steps left, about {time}{lanes}."


def print_atlas(entries: Sequence[Entry]) -> None:
    """Print each source of each regime: its share of another seed, both lifetimes, and the verdict."""
    from bygones.publish.report.atlas.tables import effect_lasts
    from bygones.publish.verdicts import format_effect_share

    rows = [
        (entry.regime, cell.name, format_effect_share(cell.reading.last),
         "unbounded" if cell.steps is None else f"{cell.steps:.3g}", effect_lasts(cell.reading))
        for entry in entries
        for cell in entry.cells
    ]  # fmt: skip
    columns = ("regime", "arm", "of another seed", "carrier lasts (steps)", "effect stood (steps)")
    out.print(table("", columns, rows))
    for entry in entries:
        for one in entry.signatures:
            out.print(f"{entry.regime}: {one}")


def plan_dict(planned: Plan, num_workers: int) -> Mapping[str, Any]:
    """Return the plan of a study as JSON-able values."""
    return {
        "study": planned.study.name,
        "seeds": len(planned.study.seeds),
        "arms": [arm.name for arm in planned.arms],
        "steps_without_sharing": planned.steps_naive,
        "steps_with_sharing": planned.steps_shared,
        "steps_left": planned.steps_left,
        "bytes": planned.bytes_total,
        "lanes": planned.choice.to_dict(),
        "seconds_a_step": planned.seconds_a_step,
        "seconds_left": planned.seconds_left(num_workers),
        "sources": [source.to_dict() for source in planned.facts.sources or ()],
        "findings": list(planned.facts.findings or ()),
        "digests": planned.facts.digests,
    }


def size(num_bytes: float) -> str:
    """Format a number of bytes.

    >>> size(23_853_952)
    '23.9 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """Format a time in seconds.

    >>> duration(0.4), duration(95), duration(7300)
    ('a second', '95 seconds', '2.0 hours')
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
