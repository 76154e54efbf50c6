"""Reporting checklist: what a paper should state about a study, filled in from the study's records.

    {"format": 1, "study": …, "counts": {"answered": N, "not recorded": M, "flagged": K},
     "items": [{"item", "status", "answer", "why"}, …]}

    answered        recorded; `answer` is what the record says
    not recorded    nothing in the record says it; `answer` is empty
    flagged         recorded, and `why` it needs a second look

Nothing is answered from what is usual: an item whose record is missing is *not recorded*. The form is
checklist.schema.json, which comes with the package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects, headline_metric
from bygones.analysis.multiplicity import Family
from bygones.core.study_facts import OrderFacts, SourceFacts, describe_repeats, facts_of
from bygones.core.text import capitalize, format_count, format_value, join_names

Status = Literal["answered", "not recorded", "flagged"]
FORMAT = 1


def checklist(outcomes: xr.Dataset, effects: Sequence[Effect] | None = None) -> dict[str, Any]:
    """Fill in the checklist of a study, as plain values. `effects`: those of its headline, if known."""
    if effects is None:
        effects = all_effects(outcomes, (headline_metric(outcomes),))
    read = _StudyRecord(outcomes, [e for e in effects if e.metric == headline_metric(outcomes)])
    items = [{"item": name, **_status_of(fill(read))} for name, fill in _ITEMS.items()]
    kinds: tuple[Status, ...] = ("answered", "not recorded", "flagged")
    counts = {kind: sum(item["status"] == kind for item in items) for kind in kinds}
    return {"format": FORMAT, "study": read.facts.study, "counts": counts, "items": items}


def headline_of(filled: Mapping[str, Any]) -> str:
    """Return the numbers of items answered, missing and flagged, in words."""
    counts = filled["counts"]
    return (
        f"{counts['answered']} answered, {counts['not recorded']} not recorded, "
        f"{counts['flagged']} flagged"
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a checklist."""
    return json.loads(files("bygones.publish").joinpath("checklist.schema.json").read_text("utf-8"))


def to_markdown(filled: Mapping[str, Any]) -> str:
    """Format the checklist as a Markdown table, for an appendix or an issue."""
    lines = [
        f"# Reporting checklist: {filled['study']}", "",
        f"{headline_of(filled)}.", "",
        "| item | status | what the record says |",
        "|---|---|---|",
    ]  # fmt: skip
    for item in filled["items"]:
        said = " ".join(filter(None, [item["answer"], item["why"] and f"**{item['why']}**"]))
        lines.append(f"| {_cell(item['item'])} | {item['status']} | {_cell(said) or '–'} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# ------------------------------------------------------------------ items


class _StudyRecord:
    """The records of a study that the items are filled in from."""

    def __init__(self, outcomes: xr.Dataset, effects: Sequence[Effect]) -> None:
        self.outcomes, self.effects, self.facts = outcomes, effects, facts_of(outcomes)
        self.arms = Arms(self.facts.arms)
        self.seeds = [int(seed) for seed in outcomes["seed"].values]

    def observed(self) -> xr.DataArray:
        return self.outcomes["logits" if "logits" in self.outcomes else "values"]


_Answer = (
    tuple[str, str] | str | None
)  # an answer; an answer and why it is flagged; or nothing recorded


def _status_of(said: _Answer) -> dict[str, str]:
    answer, why = said if isinstance(said, tuple) else (said or "", "")
    status: Status = "flagged" if why else "answered" if answer else "not recorded"
    return {"status": status, "answer": answer, "why": why}


# ------------------------------------------------------------------ memory and how it was treated


def _sources(read: _StudyRecord) -> _Answer:
    found = read.facts.sources
    if not found:
        return None
    return f"{len(found)} found: {join_names(_with_lifetime(one) for one in found)}."


def _with_lifetime(source: SourceFacts) -> str:
    return f"{source.name} ({source.origin}, {source.lifetime})"


def _treatments(read: _StudyRecord) -> _Answer:
    arms = read.arms.with_role("treated")
    if not arms:
        return None
    return "; ".join(f"{arm.name}: {arm.sentence}" for arm in arms) + "."


def _untreated(read: _StudyRecord) -> _Answer:
    if not read.facts.sources or not read.arms.all:
        return None
    left = _left_alone(read)
    if not left:
        return "None: every source that was found was treated by some arm."
    return f"Carried on in every arm: {join_names(left)}. Nothing is said of what they do."


def _left_alone(read: _StudyRecord) -> list[str]:
    treated = {t.source for arm in read.arms.with_role("treated") for t in arm.treatments}
    return [one.name for one in read.facts.sources or () if one.name not in treated]


def _windows(read: _StudyRecord) -> _Answer:
    rows = [
        f"{arm.name}: {_steps(*t.window)} against {t.lifetime}"
        for arm in read.arms.with_role("treated")
        for t in arm.treatments
    ]
    about = (
        "Window",
        "window",
        "Followed for less",
    )  # as the design check begins what it says of windows
    notes = [note for note in read.facts.findings or () if note.startswith(about)]
    if not rows:
        return None
    return ("; ".join(rows) + ".", " ".join(notes)) if notes else "; ".join(rows) + "."


def _steps(start: int, stop: int) -> str:
    return f"step {start}" if stop - start == 1 else f"steps {start}–{stop - 1}"


def _inert(read: _StudyRecord) -> _Answer:
    certificate = read.facts.certificate
    if certificate and certificate.sufficiency:
        moved = certificate.sufficiency
        why = "" if moved["sufficient"] else "Some memory is in none of the sources."
        return moved["said"], why
    if not certificate or certificate.kind == "twins":
        return None
    inert, constant = certificate.inert, certificate.constant
    said = (
        f"Leaving these out changed nothing in the fork check: {join_names(inert)}."
        if inert
        else "None: leaving out any source that differs between two runs was noticed by the fork check."
    )
    if constant:
        said += f" The same in two runs, so not tested: {join_names(constant)}."
    return (said, "For the inert ones the fork check abstains.") if inert else said


def _batchnorm(read: _StudyRecord) -> _Answer:
    found = read.facts.sources
    if found is None or "batchnorm" in [one.name for one in found]:
        return None  # whether they were estimated anew before evaluation is no part of a record
    return "No BatchNorm statistics were found in the run."


def _averages(read: _StudyRecord) -> _Answer:
    found = read.facts.sources
    if found is None or any(one.origin == "averaging" for one in found):
        return None  # which weights the probe read is no part of a record
    return "No averaged weights were found in the run, so there is no choice of what to evaluate."


# ------------------------------------------------------------------ randomness


def _order_policy(read: _StudyRecord) -> _Answer:
    orders = read.facts.orders
    if orders is None or not orders.policy:
        return None
    digest = orders.policy_hash
    return f"{capitalize(orders.policy)}{f', policy hash {digest[:12]}…' if digest else '.'}"


def _order_hashes(read: _StudyRecord) -> _Answer:
    orders = read.facts.orders or OrderFacts()
    realised = {seed: h for seed, h in orders.realised.items() if h}
    if not realised:
        return None
    different = len(set(realised.values()))
    seeds = format_count(len(realised), "seed", separator=",")
    said = f"Hashed for the controls of {seeds}: {different} different."
    missing = len(read.seeds) - len(realised)
    if missing:
        return said, f"{format_count(missing, 'seed', separator=',')} without one."
    return (said, "Some seeds were shown the same order.") if different < len(realised) else said


def _rng(read: _StudyRecord) -> _Answer:
    rng = read.facts.rng
    if not rng:
        return None
    drawn = [one["name"] for one in rng["streams"] if one["drawn"]]
    unseen = [one["name"] for one in rng["streams"] if one["drawn"] is None]
    said = f"{capitalize(rng['contract'])}; {format_count(len(rng['streams']), 'stream')}, seen to draw: "
    said += f"{join_names(drawn) or 'none'}."
    return (said, f"Not looked at: {join_names(unseen)}.") if unseen else said


def _seeds(read: _StudyRecord) -> _Answer:
    seeds = format_count(len(read.seeds), "seed", separator=",")
    said = f"{seeds} ({_ranges(read.seeds)}); the unit is the seed pair."
    if read.facts.repeats:
        said += f" {capitalize(describe_repeats(read.facts.repeats))}, averaged."
    if read.facts.stopping is not None:
        batches = "; ".join(_ranges(batch) for batch in read.facts.stopping.batches)
        said += f" {capitalize(str(read.facts.stopping))}. Batches: {batches}."
    return (said, "With one seed there is no interval.") if len(read.seeds) < 2 else said


def _ranges(seeds: Sequence[int]) -> str:
    """
    >>> _ranges([0, 1, 2, 7])
    '0–2, 7'
    """
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


# ------------------------------------------------------------------ what is estimated


def _estimands(read: _StudyRecord) -> _Answer:
    num_inputs = read.observed().sizes["input"]
    metric = headline_metric(read.outcomes)
    kind = "logits" if "logits" in read.outcomes else "values"
    inputs = format_count(num_inputs, "input", separator=",")
    horizons = format_count(read.outcomes.sizes["step"], "horizon")
    return (
        f"Mean over seeds of the distance ({metric}) between treated and control, on "
        f"{inputs} ({kind}), at {horizons}."
    )


def _intervals(read: _StudyRecord) -> _Answer:
    if not read.effects:
        return None
    last = read.effects[-1].estimate
    # Exactly nothing has no width, and that is as it should be.
    moved = [e.estimate for e in read.effects if (e.estimate.low, e.estimate.high) != (0.0, 0.0)]
    notes = sorted({estimate.note for estimate in moved if estimate.note})
    methods = join_names(dict.fromkeys(e.estimate.method for e in read.effects))
    said = f"{capitalize(methods)}, {100 * last.level:g}%, over seed pairs."
    if read.facts.interval is not None:
        said += f" Rule, fixed beforehand: {read.facts.interval}."
    return (said, " ".join(f"{capitalize(note)}." for note in notes)) if notes else said


def _multiplicity(read: _StudyRecord) -> _Answer:
    family = read.facts.family
    return f"{capitalize(str(Family(**family)))}." if family else None


def _margins(read: _StudyRecord) -> _Answer:
    margins = read.facts.margins
    if margins is None:
        return None
    if not margins:
        return "No margin was declared, so no absence of an effect can be claimed."
    return f"Declared with the study: {join_names(f'{name} {size:g}' for name, size in margins.items())}."


# ------------------------------------------------------------------ references


def _sham(read: _StudyRecord) -> _Answer:
    arms = read.arms
    if arms.sham is None or not arms.with_role("control"):
        return None
    observed = read.observed()
    sham, control = (observed.sel(arm=arms.names[i]).values for i in (arms.sham, arms.control))
    if not (np.isfinite(sham) & np.isfinite(control)).any():
        return "Run.", "It diverged in every seed, or the control did, so nothing can be compared."
    if np.array_equal(sham, control, equal_nan=True):
        return f"Run, and exactly 0: every output equals the control's.{_merged(read)}"
    with np.errstate(invalid="ignore"):
        largest = float(np.nanmax(np.abs(sham - control)))
    return (
        f"Run; it moves an output by up to {largest:.2g}.",
        "Doing nothing is not nothing here, so effects may be artefacts.",
    )


def _merged(read: _StudyRecord) -> str:
    """Say in how many seeds the sham was not trained to its end, since its state was the control's."""
    if "equal_from" not in read.outcomes or read.arms.sham is None:
        return ""
    num = int(np.isfinite(read.outcomes["equal_from"].values[:, read.arms.sham]).sum())
    seeds = f"{num} of {format_count(len(read.seeds), 'seed')}"
    return (
        f" In {seeds} its training ended where its whole state equalled the control's in every bit."
        if num
        else ""
    )


def _nulls(read: _StudyRecord) -> _Answer:
    treated = read.arms.treated
    if not treated:
        return None
    drawn = [name for name in treated if read.arms[name].redraw]
    missing = [name for name in treated if name not in drawn and read.arms.null_of(name) is None]
    said = f"Run for {len(treated) - len(missing) - len(drawn)} of {format_count(len(treated), 'arm')}."
    if drawn:
        said += f" Random changes themselves, so without one: {join_names(drawn)}."
    reasons = "; ".join(f"{name}: {read.arms.no_null(name)}" for name in missing)
    return (said, f"Without a matched null: {reasons}.") if missing else said


def _ceiling(read: _StudyRecord) -> _Answer:
    last = max((e.step for e in read.effects), default=0)
    ceilings = [e.ceiling for e in read.effects if e.ceiling is not None and e.step == last]
    if not ceilings:
        return (
            None if not read.effects else ("None.", "With one seed there is no other to compare.")
        )
    return f"Between the controls of two seeds, at the last horizon: {ceilings[-1]}."


def _horizons(read: _StudyRecord) -> _Answer:
    fork_at = read.facts.fork_at
    horizons = [int(step) - fork_at for step in read.outcomes["step"].values]
    forks = dict.fromkeys([fork_at, *(repeat.fork_at for repeat in read.facts.repeats)])
    steps = "step" if len(forks) == 1 else "steps"
    return f"Forked at {steps} {join_names(forks)}; observed {join_names(horizons)} steps later."


def _diverged(read: _StudyRecord) -> _Answer:
    if "diverged_at" not in read.outcomes:
        return None
    num = int(np.isfinite(read.outcomes["diverged_at"].values).sum())
    if not num:
        return "No run diverged."
    return (
        f"{format_count(num, 'run', separator=',')} diverged.",
        "Their pairs are left out from there on.",
    )


def _not_recorded(read: _StudyRecord) -> _Answer:
    """No study records it."""
    return None


# ------------------------------------------------------------------ under which conditions


def _contract(read: _StudyRecord) -> _Answer:
    contract = read.facts.contract
    if not contract:
        return None
    said = (
        "; ".join(f"{name} {format_value(value)}" for name, value in sorted(contract.items())) + "."
    )
    if contract.get("deterministic") is False:
        return said, "Deterministic algorithms were not asked for."
    return said


def _compute(read: _StudyRecord) -> _Answer:
    steps = read.facts.num_steps
    if not steps:
        return None
    return f"{steps['shared']:,} optimizer steps; {steps['naive']:,} without shared pasts."


def _certificate(read: _StudyRecord) -> _Answer:
    certificate = read.facts.certificate
    if not certificate:
        return None
    twins = certificate.kind == "twins"
    said = (
        f"{'Twins' if twins else 'Forks'} at {join_names(certificate.boundaries)}, compared until step "
        f"{certificate.until}: "
    )
    if certificate.passed:
        return f"{said}equal to the bit."
    return f"{said}not equal.", "Something is not carried, or not decided by the seed."


def _digests(read: _StudyRecord) -> _Answer:
    digests = read.facts.digests
    if not digests:
        return None
    return join_names(f"{name} {digest[:12]}…" for name, digest in digests.items())


def _way(read: _StudyRecord) -> _Answer:
    """Only studies of scripts and trainers say how their arms were made; a recipe's are restored."""
    if read.facts.way:
        return read.facts.way
    if read.facts.certificate and not read.facts.certificate.kind:
        return "Each arm goes on from a snapshot of the shared past."
    return None


def _open(read: _StudyRecord) -> _Answer:
    """Return what the other items leave open, in one place."""
    notes, certificate = read.facts.findings, read.facts.certificate
    if notes is None:
        return None
    inert = certificate.inert if certificate else ()
    parts = [f"Inert in the fork check: {join_names(inert)}."] if inert else []
    constant = certificate.constant if certificate else ()
    parts += [f"Not tested by the fork check: {join_names(constant)}."] if constant else []
    left = _left_alone(read)
    parts += [f"Carried on in every arm: {join_names(left)}."] if left else []
    if not parts and not notes:
        return "The design check named nothing, and no source was left alone or inert."
    return (" ".join(parts), " ".join(notes)) if notes else " ".join(parts)


_ITEMS: dict[str, Callable[[_StudyRecord], _Answer]] = {
    "Sources of memory, with their lifetimes": _sources,
    "How each source was treated": _treatments,
    "Sources that were left alone": _untreated,
    "Windows against lifetimes": _windows,
    "Sources that make no difference (inert)": _inert,
    "Recomputation of BatchNorm statistics": _batchnorm,
    "Averaging, and which weights were evaluated": _averages,
    "Policy of the data order": _order_policy,
    "Realised orders": _order_hashes,
    "RNG contract": _rng,
    "Seeds and unit": _seeds,
    "Estimands": _estimands,
    "Interval method": _intervals,
    "Multiplicity": _multiplicity,
    "Margins for absence": _margins,
    "Sham": _sham,
    "Matched nulls": _nulls,
    "Ceiling: another seed": _ceiling,
    "Fork and horizons": _horizons,
    "Divergence": _diverged,
    "Stability exponent": _not_recorded,
    "How arms were made": _way,
    "Fork check": _certificate,
    "Numeric contract": _contract,
    "Code and design": _digests,
    "Compute: steps": _compute,
    "Compute: time and energy": _not_recorded,
    "What was not controlled": _open,
}
