"""The tables of a report: plain rows with full-precision numbers, written as CSV.

The page and the LaTeX show the same rows, rounded for people; the CSV keeps every digit.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.effect import Effect
from bygones.analysis.estimators import Estimate
from bygones.core.study_facts import ArmFacts, OrderFacts, SourceFacts
from bygones.publish.verdicts import Reading, share

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Named columns and rows; a cell is a string, a number, or None where there is nothing.

    For people: `title`; columns `in_unit` are quoted in the unit of the row's metric, `shares` as
    percentages; `split_by` names a column of which each value is to be a table of its own.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""
    in_unit: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    split_by: str | None = None


def _table(
    name: str, rows: Iterable[Row], columns: Sequence[str], title: str, **quoted: Any
) -> Table:
    return Table(name, tuple(columns), tuple(rows), title, **quoted)


def estimate_cells(name: str, estimate: Any) -> dict[str, Any]:
    """Return a value and the ends of its interval, each a cell."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


_REFERENCES = ("estimate", "floor", "null", "excess", "ceiling", "fraction")
_EFFECT_COLUMNS = (
    "arm", "metric", "step", "horizon",
    *(f"{name}{end}" for name in _REFERENCES for end in ("", "_low", "_high")),
    "level", "num_pairs", "num_diverged", "method", "note", "skewness",
    "excess_method", "fraction_method", "share_limit", "resolution",
    "pair_correlation", "variance_ratio", "sentence",
)  # fmt: skip


def effects_table(effects: Iterable[Effect]) -> Table:
    """Return the effects by arm, horizon and metric: estimates, intervals, pairs, methods, references."""
    rows = []
    for effect in effects:
        row: dict[str, Any] = {"arm": effect.arm, "metric": effect.metric}
        row |= {"step": effect.step, "horizon": effect.horizon}
        for name in _REFERENCES:
            row |= estimate_cells(name, getattr(effect, name))
        row |= {"level": effect.estimate.level, "num_pairs": effect.estimate.num_pairs}
        row |= {"num_diverged": effect.num_diverged, "method": effect.estimate.method}
        row |= {"note": effect.estimate.note, "pair_correlation": effect.pair_correlation}
        row |= {"skewness": effect.estimate.skewness, "excess_method": _method(effect.excess)}
        row |= {"fraction_method": _method(effect.fraction), "share_limit": effect.share_limit}
        row |= {"resolution": effect.resolution}
        row |= {"variance_ratio": effect.variance_ratio, "sentence": str(effect)}
        rows.append(row)
    return _table(
        "effects", rows, _EFFECT_COLUMNS, "Every effect with its references, by arm and horizon",
        in_unit=(*_REFERENCES[:-1], "resolution"), shares=("fraction", "level", "share_limit"),
        split_by="metric",
    )  # fmt: skip


def _method(estimate: Estimate | None) -> str | None:
    return None if estimate is None else estimate.method


_ANSWER_COLUMNS = (
    "arm", "verdict", "metric", "horizon", "estimate", "estimate_low", "estimate_high",
    "fraction", "fraction_low", "fraction_high", "null", "null_fraction", "floor",
    "first_horizon", "first_estimate", "peak_horizon", "peak_estimate", "num_pairs", "method",
)  # fmt: skip


def answer_table(readings: Iterable[Reading]) -> Table:
    """Return one row a treated arm: the effect at the last horizon, its references and its verdict."""
    rows = []
    for reading in readings:
        last = reading.last
        null = math.nan if last.null is None else last.null.value
        row: dict[str, Any] = {"arm": reading.arm, "verdict": reading.verdict}
        row |= {"metric": last.metric, "horizon": last.horizon}
        row |= estimate_cells("estimate", last.estimate) | estimate_cells("fraction", last.fraction)
        row |= {"null": null, "null_fraction": share(last, null)}
        row |= {"floor": None if last.floor is None else last.floor.value}
        row |= {"first_horizon": reading.first.horizon}
        row |= {"first_estimate": reading.first.estimate.value}
        row |= {"peak_horizon": reading.peak.horizon}
        row |= {"peak_estimate": reading.peak.estimate.value}
        row |= {"num_pairs": last.estimate.num_pairs, "method": last.estimate.method}
        rows.append(row)
    return _table(
        "answer", rows, _ANSWER_COLUMNS, "What the function still shows at the last horizon",
        in_unit=("estimate", "null", "floor", "first_estimate", "peak_estimate"),
        shares=("fraction", "null_fraction"),
    )  # fmt: skip


_LIFETIME_COLUMNS = (
    "arm", "source", "intervention", "window_start", "window_stop", "leaves", "lifetime",
    "lifetime_steps", "stood_until", "gone_from", "last_horizon", "verdict",
    "null_ratio_low", "null_ratio_high", "no_null",
)  # fmt: skip


def lifetimes_table(readings: Iterable[Reading], arms: Sequence[ArmFacts]) -> Table:
    """Return the source's lifetime beside the effect's washout, one row a treatment.

    `null_ratio`: the matched null's displacement of the sources beside the treatment's, as measured:
    smallest and largest over seeds and boundaries. `no_null`: why there is no matched null.
    """
    by_name = {arm.name: arm for arm in arms}
    ratios = {arm.null_of: arm.null_ratio for arm in arms if arm.role == "null"}
    rows = []
    for reading in readings:
        for treatment in by_name[reading.arm].treatments:
            start, stop = treatment.window
            row: dict[str, Any] = {"arm": reading.arm, "source": treatment.source}
            row |= {"intervention": treatment.intervention, "leaves": treatment.leaves}
            row |= {"window_start": start, "window_stop": stop}
            row |= {"lifetime": treatment.lifetime}
            row |= {"lifetime_steps": treatment.lifetime_steps}
            row |= {
                "stood_until": reading.washout.last_standing,
                "gone_from": reading.washout.gone_by,
            }
            row |= {"last_horizon": reading.last.horizon, "verdict": reading.verdict}
            low, high = ratios.get(reading.arm) or (None, None)
            row |= {"null_ratio_low": low, "null_ratio_high": high}
            row |= {"no_null": Arms(arms).no_null(reading.arm)}
            rows.append(row)
    title = "How long the carrier lasts and how long its effect, in steps"
    return _table("lifetimes", rows, _LIFETIME_COLUMNS, title)


def sources_table(sources: Iterable[SourceFacts]) -> Table:
    """Return the sources: what crosses the step boundary of a run."""
    columns = ("name", "origin", "visibility", "lifetime", "leaves", "bytes")
    return _table(
        "sources",
        [one.to_dict() for one in sources],
        columns,
        "What a run carries from one step to the next",
    )


def diverged_table(outcomes: xr.Dataset) -> Table:
    """Return every run whose loss stopped being finite: which seed, which arm, at which step."""
    found = []
    for arm in outcomes["arm"].values.tolist():
        for seed in outcomes["seed"].values.tolist():
            step = float(outcomes["diverged_at"].sel(seed=seed, arm=arm))
            if not math.isnan(step):
                found.append({"arm": arm, "seed": seed, "step": int(step)})
    return _table("diverged", found, ("arm", "seed", "step"), "Runs that diverged")


def orders_table(orders: OrderFacts) -> Table:
    """Return the hash of the order that each seed really saw."""
    seen = orders.realised.items()
    rows = ({"seed": seed, "order_hash": digest} for seed, digest in seen if digest)
    return _table("orders", rows, ("seed", "order_hash"), "The order that each seed saw")


def write_csv(table: Table, folder: Path) -> Path:
    """Write `<folder>/<name>.csv`: full precision, empty where there is no value."""
    path = folder / f"{table.name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        for row in table.rows:
            writer.writerow([_cell(row.get(column)) for column in table.columns])
    return path


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else value
