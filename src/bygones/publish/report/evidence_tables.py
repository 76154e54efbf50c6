"""The tables of a report's later sections: comparisons, absences, pairing, inputs, calibration."""

from __future__ import annotations

from collections.abc import Iterable

from bygones.analysis.estimators import Estimate
from bygones.analysis.function_field import moved_inputs
from bygones.publish.report.evidence import Evidence, Moved
from bygones.publish.report.tables import Row, Table, estimate_cells


def evidence_tables(evidence: Evidence) -> list[Table]:
    """Return every table that is not empty, and the first three always."""
    tables = [_family(evidence), _equivalence(evidence), _pairing(evidence)]
    if evidence.models:
        tables.append(_models(evidence))
    moved = evidence.moved
    if moved is not None:
        if not moved.field.too_few:
            tables.append(_moved_inputs(moved))
        if moved.by_class:
            tables.append(_breakdown(moved))
        if moved.curves is not None:
            tables += [_calibration(moved), _brier(moved)]
    return tables


def _table(name: str, rows: Iterable[Row], columns: str, title: str, **quoted) -> Table:
    return Table(name, tuple(columns.split()), tuple(rows), title, **quoted)


def _family(evidence: Evidence) -> Table:
    columns = "arm metric horizon value p_value adjusted found note"
    title = f"All comparisons together: {evidence.adjusted}".rstrip(".")
    return _table("family", evidence.adjusted.rows(), columns, title, in_unit=("value",))


def _equivalence(evidence: Evidence) -> Table:
    rows = []
    for absence in evidence.absences:
        result = absence.result
        row: dict = {"arm": absence.arm, "metric": absence.metric, "horizon": absence.horizon}
        row |= {"margin": result.margin} | estimate_cells("estimate", result.estimate)
        row |= {"level": result.estimate.level, "num_pairs": result.estimate.num_pairs}
        row |= {"p_lower": result.p_lower, "p_upper": result.p_upper, "alpha": result.alpha}
        rows.append(row | {"equivalent": result.equivalent, "sentence": str(absence)})
    columns = (
        "arm metric horizon margin estimate estimate_low estimate_high level num_pairs "
        "p_lower p_upper alpha equivalent sentence"
    )
    quoted = {"in_unit": ("margin", "estimate"), "shares": ("level",)}
    return _table("equivalence", rows, columns, "Two one-sided tests within a margin", **quoted)


def _pairing(evidence: Evidence) -> Table:
    rows = [
        {
            "arm": p.arm, "metric": p.metric, "horizon": p.horizon, "num_pairs": p.num_pairs,
            "correlation": p.correlation, "variance_ratio": p.variance_ratio, "pays": p.pays,
        }
        for p in evidence.pairing_gains
    ]  # fmt: skip
    columns = "arm metric horizon num_pairs correlation variance_ratio pays"
    return _table("pairing", rows, columns, "What pairing by seed was worth", split_by="metric")


def _models(evidence: Evidence) -> Table:
    rows = [
        {"model": model, "arm": effect.arm, "metric": effect.metric, "horizon": effect.horizon}
        | estimate_cells("estimate", effect.estimate)
        | estimate_cells("excess", effect.excess)
        | estimate_cells("fraction", effect.fraction)
        | {"sentence": str(effect)}
        for model, effects in evidence.models.items()
        for effect in effects
    ]
    columns = (
        "model arm metric horizon estimate estimate_low estimate_high excess excess_low excess_high "
        "fraction fraction_low fraction_high sentence"
    )
    title = "What the other models that are alive show at the last horizon"
    quoted = {"in_unit": ("estimate", "excess"), "shares": ("fraction",), "split_by": "model"}
    return _table("models", rows, columns, title, **quoted)


def _moved_inputs(moved: Moved) -> Table:
    rows = [
        {"input": m.input, "label": m.label, "at": m.at} | estimate_cells("change", m.change)
        for m in moved_inputs(moved.field)
    ]
    what = moved.field.of.replace("classes", "probability").replace("_", " ")
    title = f"Inputs that {moved.arm} moves {moved.horizon} steps on, the surest first ({what})"
    return _table("moved_inputs", rows, "input label at change change_low change_high", title)


def _breakdown(moved: Moved) -> Table:
    rows = []
    for by, groups in (("class", moved.by_class), ("difficulty", moved.by_difficulty)):
        for group in groups:
            row: dict = {"by": by, "group": group.name, "num_inputs": group.num_inputs}
            row |= estimate_cells("shift", group.shift) | estimate_cells("null", group.null)
            row |= estimate_cells("squared_norm", group.squared_norm)
            rows.append(row | {"share_moved": group.share_moved})
    columns = (
        "by group num_inputs shift shift_low shift_high null null_low null_high "
        "squared_norm squared_norm_low squared_norm_high share_moved"
    )
    title = (
        f"What {moved.arm} does to the label's probability {moved.horizon} steps on, in groups "
        f"of inputs"
    )
    return _table("breakdown", rows, columns, title, split_by="by", shares=("share_moved",))


def _calibration(moved: Moved) -> Table:
    rows = []
    for curve in moved.curves or ():
        for b in curve.bins:
            row: dict = {"arm": curve.arm, "low": b.low, "high": b.high, "share": b.share}
            row |= {"confidence": b.confidence} | estimate_cells("accuracy", b.accuracy)
            rows.append(row | {"num_pairs": curve.num_pairs})
    columns = "arm low high share confidence accuracy accuracy_low accuracy_high num_pairs"
    title = f"Reliability {moved.horizon} steps on, by bins of confidence"
    shares = ("low", "high", "share", "confidence", "accuracy")
    return _table("calibration", rows, columns, title, shares=shares)


def _brier(moved: Moved) -> Table:
    def row(part: str, change: Estimate) -> Row:
        cells: dict = {"part": part.replace("_", " ")} | estimate_cells("change", change)
        return cells | {"num_pairs": change.num_pairs, "method": change.method}

    rows = [row(part, change) for part, change in (moved.brier or {}).items()]
    title = f"What {moved.arm} does to the Brier score and its parts {moved.horizon} steps on"
    return _table("brier", rows, "part change change_low change_high num_pairs method", title)
