"""Resume check: what a script's checkpoint fails to restore, and how far each omission moves the function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bygones.attach.isolation.fork import scratch_folder, spawn_fork
from bygones.attach.isolation.fresh_interpreter import FreshInterpreter, other_hashes
from bygones.attach.isolation.script import check_script
from bygones.attach.isolation.warmup import early_imports, warm
from bygones.audit.resume_runs import ReferenceRun
from bygones.audit.resume_verdicts import Verdict, with_seeds
from bygones.audit.resuming.changed_settings import ChangedSettings, gather_changed
from bygones.audit.resuming.costs import Cost, SeedResult, gather_costs, largest_sham_distance
from bygones.audit.resuming.notes import write_notes
from bygones.audit.resuming.remedies import Remedy, suggest_remedies
from bygones.audit.resuming.request import ResumeRequest
from bygones.audit.resuming.seed_check import SeedCheck
from bygones.core.errors import DesignError, ScriptError
from bygones.core.text import to_plain

# Without --seeds, these are run if something is lost and the later ones take less than a minute.
_SEEDS, _SECONDS_FOR_INTERVALS = (0, 1, 2), 60
_CORES = min(2, os.cpu_count() or 1)  # that are used


@dataclass(frozen=True)
class ResumeReport:
    """What a resume check found. `floor`: the same distance for the sham, which is exactly 0."""

    script: str
    interrupted_at: int
    start: int
    until: int
    seeds: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    costs: tuple[Cost, ...]
    floor: float
    crossed: Mapping[str, int]
    notes: tuple[str, ...] = ()
    remedies: Mapping[str, Remedy] = field(default_factory=dict)  # what to write, by lost source
    settings: ChangedSettings | None = None  # a resume under other settings
    processes: int = 0  # of a job

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(v.source for v in self.verdicts if v.outcome == "FAIL")

    def to_dict(self) -> dict[str, Any]:
        return to_plain({"passed": not self.failed, **asdict(self), "failed": self.failed})


def audit_resume(
    request: ResumeRequest,
    home: Path,
    on_run: Callable[[str], None] = lambda _: None,
    interpreter: FreshInterpreter | None = None,
) -> ResumeReport:
    """Run a script uninterrupted, interrupted and resumed, each in its own process, and compare.

    `interpreter`: that of `other_hashes()`, if it was started before.
    """
    for script in (request.whole, request.resumed, request.interrupted or request.whole):
        check_script(script)
    if request.whole.processes:
        _check_job(request)
        return _audit(request, home, on_run, None)
    with other_hashes() if interpreter is None else nullcontext(interpreter) as other:
        return _audit(request, home, on_run, other)


def _check_job(request: ResumeRequest) -> None:
    """Raise `DesignError` for what is not compared in a job of several processes."""
    sizes = request.whole.processes, request.resumed.processes
    if sizes[0] != sizes[1]:
        raise DesignError(
            f"the job has {sizes[0]} processes and the resumed one {sizes[1]}. Expected as many: what "
            f"another number of processes changes is not compared."
        )
    if request.again is not None or request.other_settings:
        raise DesignError(
            "--again, --then and --then-env are for a script of one process. Leave them out for a job."
        )


def _audit(
    request: ResumeRequest,
    home: Path,
    on_run: Callable[[str], None],
    interpreter: FreshInterpreter | None,
) -> ResumeReport:
    early = early_imports(home / request.whole.path)
    if interpreter is not None:  # it imports them while this process does
        interpreter.warm(early)
    warm(early)
    began = time.monotonic()
    first, *rest = request.seeds or _SEEDS[:1]
    with scratch_folder() as folder:
        given = (request, home, folder, interpreter)
        found = {first: SeedCheck(*given, first, on_run, _CORES).check()}
        if not request.seeds and found[first].has_costs:
            needed = (len(_SEEDS) - 1) * (time.monotonic() - began)
            if needed < _SECONDS_FOR_INTERVALS:
                rest = [*_SEEDS[1:]]
            else:
                found[first].notes += (_why_one_seed(needed),)
        whole = found[first].whole
        at_once = _CORES if whole.can_fork and not whole.ranks else 1
        for begin in range(0, len(rest), at_once):
            some = rest[begin : begin + at_once]
            on_run(
                f"the same with seed{'s' if len(some) > 1 else ''} {' and '.join(map(str, some))}"
            )
            checks = [SeedCheck(*given, seed, arms_at_once=_CORES // len(some)) for seed in some]
            found |= zip(some, _check_at_once(checks), strict=True)
    return _report(request, found)


def _check_at_once(checks: Sequence[SeedCheck]) -> list[SeedResult]:
    """Make several checks side by side, each in a fork of this process. Raises the first error."""
    if len(checks) == 1:
        return [checks[0].check()]
    children = [spawn_fork(check.check) for check in checks]
    killed = ScriptError("a process was killed while it checked a seed (out of memory?).")
    found = []
    for result, error in [child.wait() or (None, killed) for child in children]:
        if error is not None:
            raise error
        found.append(result)
    return found


def _why_one_seed(seconds: float) -> str:
    return (
        f"The effects have no interval: two more seeds would take about {seconds:.0f} seconds, and are run "
        f"by themselves only below {_SECONDS_FOR_INTERVALS}. Try --seeds 0-2."
    )


# ------------------------------------------------------------------ gathering


def _report(request: ResumeRequest, found: Mapping[int, SeedResult]) -> ResumeReport:
    one = next(iter(found.values()))
    assert one.resumed.start is not None
    start, whole = one.resumed.start.step, one.whole
    verdicts = tuple(with_seeds({seed: mine.verdicts for seed, mine in found.items()}))
    lost = [v.source for v in verdicts if v.outcome == "FAIL"]
    kinds = {mine.whole.inputs.kind for mine in found.values() if mine.whole.inputs is not None}
    return ResumeReport(
        script=str(request.whole),
        interrupted_at=one.at,
        start=start,
        until=one.end,
        seeds=tuple(found),
        verdicts=verdicts,
        costs=tuple(gather_costs(found)),
        floor=max(largest_sham_distance(mine) for mine in found.values()),
        crossed={
            "epoch edges": sum(start < step < one.end for step in whole.epochs),
            "changes of the learning rate": _rate_changes(whole, start, one.end),
            "batches a step": max(whole.backward_calls[start : one.end], default=1),
        },
        notes=tuple(write_notes(one)),
        remedies=suggest_remedies(lost, whole.expected.objects),
        settings=gather_changed(
            request.other_settings,
            [mine.changed for mine in found.values() if mine.changed],
            [mine.ceiling[""] for mine in found.values() if "" in mine.ceiling],
            kinds,
        ),
        processes=request.whole.processes,
    )


def _rate_changes(whole: ReferenceRun, start: int, end: int) -> int:
    rates = [whole.rates[step] for step in sorted(whole.rates) if start <= step <= end]
    return sum(one != other for one, other in pairwise(rates))
