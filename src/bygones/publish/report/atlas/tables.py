"""The tables of the atlas: every arm, every signature, and what each regime cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bygones.publish.report.atlas.entry import Cell, Entry
from bygones.publish.report.tables import Table, estimate_cells
from bygones.publish.verdicts import Reading, format_effect_share, share

_ATLAS_COLUMNS = (
    "regime", "source", "arm", "stands_for_source", "share", "share_low", "share_high", "null_share",
    "verdict", "carrier", "carrier_steps", "stood_until", "gone_from", "horizon", "metric", "model", "pairs",
    "diverged", "method",
)  # fmt: skip
_SIGNATURE_COLUMNS = ("regime", "signature", "verdict", "expected", "observed", "paper")
_COST_COLUMNS = (
    "regime", "seeds", "arms", "steps", "seconds", "bytes", "study_digest", "recipe_digest",
    "bundle_digest",
)  # fmt: skip


def atlas_table(entries: Sequence[Entry]) -> Table:
    """Return one row a treated arm: its share of another seed at the last horizon, and both lifetimes.

    `stands_for_source`: whether this arm is the source's cell. `null_share`: the matched null's share.
    `model`: the observed model, where it is not the leading one.
    `carrier_steps`: empty where the carrier's lifetime is unbounded; `gone_from`: empty where the effect
    still stands at `horizon`.
    """
    rows = []
    for entry in entries:
        standing = {cell.arm.name for cell in entry.cells}
        for reading in entry.readings:
            treatments = entry.arms[reading.arm].treatments
            last = reading.last
            row: dict[str, Any] = {"regime": entry.regime, "arm": reading.arm}
            row |= {"source": " + ".join(dict.fromkeys(t.source for t in treatments))}
            row |= {"stands_for_source": reading.arm in standing}
            row |= estimate_cells("share", last.fraction)
            null = math.nan if last.null is None else last.null.value
            row |= {"null_share": share(last, null), "verdict": reading.verdict}
            row |= {"carrier": "; ".join(dict.fromkeys(t.lifetime for t in treatments))}
            row |= {"carrier_steps": treatments[0].lifetime_steps if len(treatments) == 1 else None}
            row |= {"stood_until": reading.washout.last_standing}
            row |= {"gone_from": reading.washout.gone_by, "horizon": last.horizon}
            row |= {"model": entry.seen_in.get(reading.arm)}
            row |= {"metric": last.metric, "pairs": last.estimate.num_pairs}
            row |= {"diverged": last.num_diverged, "method": last.estimate.method}
            rows.append(row)
    title = "Every treated arm at its study's last horizon, and how long carrier and effect last"
    return Table("atlas", _ATLAS_COLUMNS, tuple(rows), title, shares=("share", "null_share"))


def signatures_table(entries: Sequence[Entry]) -> Table:
    """Return one row a published result: what was expected, what was seen, and whether it was met."""
    rows = [
        {"regime": entry.regime, "signature": one.name, "verdict": one.verdict}
        | {"expected": one.expected, "observed": one.observed, "paper": one.paper or None}
        for entry in entries
        for one in entry.signatures
    ]
    return Table(
        "signatures", _SIGNATURE_COLUMNS, tuple(rows), "What has been published, and what was seen"
    )


def costs_table(entries: Sequence[Entry]) -> Table:
    """Return one row a regime: seeds, arms, optimizer steps, time and bytes, and the digests."""
    rows = [
        {"regime": entry.regime, "seeds": entry.num_seeds, "arms": len(entry.facts.arms)}
        | {"steps": entry.facts.num_steps.get("shared"), "seconds": entry.seconds}
        | {"bytes": entry.num_bytes, "study_digest": entry.facts.digests.get("study")}
        | {
            "recipe_digest": entry.facts.digests.get("recipe"),
            "bundle_digest": entry.bundle or None,
        }
        for entry in entries
    ]
    return Table("costs", _COST_COLUMNS, tuple(rows), "What each regime cost")


def shared_sources(entries: Sequence[Entry]) -> list[str]:
    """Return the sources that more than one regime has, the most frequent first: columns of the grid."""
    counted = Counter(cell.source for entry in entries for cell in entry.cells)
    return [source for source, count in counted.most_common() if count > 1]


def own_cells(entry: Entry, columns: Sequence[str]) -> list[Cell]:
    """Return the cells of the sources that have no column of their own."""
    return [cell for cell in entry.cells if cell.source not in columns]


def effect_lasts(reading: Reading) -> str:
    """Say how long an effect lasted, in steps after the fork.

    Bracketed between two steps at which it was observed: above 1% of another seed at the first, below
    from the second on.
    """
    gone, last = reading.washout.gone_by, reading.washout.last_standing
    if reading.kind in ("nothing", "unreached"):
        return "–"
    if gone is None:
        return f"over {reading.last.horizon}"
    return "none seen" if last is None else f"{last} to {gone}"


def markdown(entries: Sequence[Entry]) -> str:
    """Write the grid and the signatures as Markdown, for a README."""
    columns = shared_sources(entries)
    lines = [_md_row(["regime", *columns, "of its own"]), _md_row(["---"] * (len(columns) + 2))]
    for entry in entries:
        by_source = {cell.source: cell for cell in entry.cells}
        own = "; ".join(f"{c.source} {_md_cell(c)}" for c in own_cells(entry, columns))
        told = [_md_cell(by_source[name]) if name in by_source else "" for name in columns]
        lines.append(_md_row([f"`{entry.regime}`", *told, own]))
    lines += ["", _md_row(["regime", "published", "", "seen"]), _md_row(["---"] * 4)]
    for entry in entries:
        for one in entry.signatures:
            lines.append(_md_row([f"`{entry.regime}`", one.name, one.verdict, one.observed]))
    return "\n".join(lines) + "\n"


def _md_cell(cell: Cell) -> str:
    return f"{format_effect_share(cell.reading.last)} ({effect_lasts(cell.reading)} steps)"


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
