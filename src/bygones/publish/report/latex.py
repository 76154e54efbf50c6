r"""LaTeX tables for booktabs, rounded for reading: `0.0081 [0.0075, 0.0087]`.

What is the same in every row (95%, 32 pairs, paired t) is said once, in the caption. A column with
nothing in it, and whole sentences, are left to the CSV.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bygones.analysis.estimators import Estimate
from bygones.analysis.metrics import METRICS
from bygones.core.text import capitalize
from bygones.publish.report.tables import Row, Table
from bygones.publish.verdicts import format_estimate, format_share, number, percent

_LONG = 35  # rows from which a table goes over pages
_WIDE = 6  # columns from which its letters are smaller
_NOTHING = "–"
_HEADINGS = {
    "n": "pairs", "num": "pairs", "num_pairs": "pairs", "num_diverged": "diverged",
    "num_inputs": "inputs", "null": "matched null", "floor": "floor (sham)",
    "excess": "excess over null", "ceiling": "another seed", "fraction": "share of another seed",
    "p_value": "$p$", "adjusted": "adjusted $p$", "p_lower": "$p$ (lower)",
    "p_upper": "$p$ (upper)", "tau": r"$\tau$", "q": "$Q$", "q_p_value": "$p$ of $Q$",
    "i_squared": "$I^2$", "variance_ratio": "Var(unpaired)/Var(paired)",
}  # fmt: skip
_IN_CSV_ALONE = (
    "sentence", "note", "skewness", "excess_method", "fraction_method", "share_limit", "resolution",
)  # fmt: skip
_CHANCES = ("p_value", "adjusted", "p_lower", "p_upper", "q_p_value")
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "−": "$-$", "–": "--", "…": r"\ldots{}", "×": r"$\times$", "±": r"$\pm$", "²": "$^2$",
    "τ": r"$\tau$", "“": "``", "”": "''", "’": "'",
}  # fmt: skip
_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def escape(text: str) -> str:
    r"""Escape a text for LaTeX.

    >>> print(escape("50%_&<b>"), escape("3.1×10⁻⁷"))
    50\%\_\&\textless{}b\textgreater{} 3.1$\times$10$^{-7}$
    """
    parts = re.split(r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", " ".join(text.split()))
    return "".join(
        f"$^{{{part.translate(_RAISED)}}}$" if at % 2 else "".join(_SIGNS.get(c, c) for c in part)
        for at, part in enumerate(parts)
    )


def latex(table: Table) -> str:
    """Format a file: one table, or one for each value of the column it is split by."""
    packages = r"% \usepackage{booktabs,longtable,textcomp}"
    values = [None]
    if table.split_by is not None:
        values = list(dict.fromkeys(row.get(table.split_by) for row in table.rows)) or [None]
    parts = []
    for value in values:
        rows = [r for r in table.rows if value is None or r.get(table.split_by or "") == value]
        label = table.name if value is None else f"{table.name}-{value}"
        parts.append(_one(table, rows, re.sub(r"[^A-Za-z0-9-]+", "-", label)))
    return "\n".join([packages, *parts])


def write_latex(table: Table, folder: Path) -> Path:
    """Write `<folder>/<name>.tex`."""
    path = folder / f"{table.name}.tex"
    path.write_text(latex(table), encoding="utf-8", newline="\n")
    return path


def _one(table: Table, rows: Sequence[Row], label: str) -> str:
    columns = {name: [_cell(table, row, name) for row in rows] for name in _quoted(table)}
    columns = {
        name: cells for name, cells in columns.items() if any(c != _NOTHING for c in cells)
    } or {table.columns[0]: []}
    first = next((name for name in columns if name != table.split_by), "")  # names the row
    same = {
        name: cells[0]
        for name, cells in columns.items()
        if name != first and len(set(cells)) == 1 and (len(cells) > 1 or name == table.split_by)
    }
    kept = {name: cells for name, cells in columns.items() if name not in same}
    said = [f"{_heading(name)}: {escape(cell)}" for name, cell in same.items()]
    caption = f"{escape(table.title)}." + (f" In every row: {'; '.join(said)}." if said else "")
    align = "".join("l" if _is_text(rows, name) else "r" for name in kept)
    head = " & ".join(capitalize(_heading(name)) for name in kept) + r" \\"
    body = [_line(cells) for cells in zip(*kept.values(), strict=True)]
    named = rf"\caption{{{caption}}}\label{{tab:{label}}}"
    size = r"\footnotesize" if len(kept) >= _WIDE else r"\small"
    if len(rows) >= _LONG:
        opening = [
            rf"{{{size}\begin{{longtable}}{{@{{}}{align}@{{}}}}", named + r" \\", r"\toprule", head,
            r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead",
            r"\bottomrule", r"\endfoot",
        ]  # fmt: skip
        return "\n".join([*opening, *body, r"\end{longtable}}", ""])
    opening = [
        r"\begin{table}", r"\centering" + size, named, rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule", head, r"\midrule",
    ]  # fmt: skip
    return "\n".join([*opening, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _quoted(table: Table) -> list[str]:
    """Return the columns to show: an interval's ends go beside its value.

    What only the CSV has room for goes with the sentence, where there is one.
    """
    prose = _IN_CSV_ALONE if "sentence" in table.columns else ()
    ends = {f"{name}{end}" for name in table.columns for end in ("_low", "_high")}
    return [name for name in table.columns if name not in ends and name not in prose]


def _line(cells: Sequence[str]) -> str:
    text = " & ".join(escape(cell) for cell in cells) + r" \\"
    # After a line's end LaTeX would read a leading bracket or star as an option of it.
    return "{}" + text if text[:1] in ("[", "*") else text


def _cell(table: Table, row: Row, name: str) -> str:
    value = row.get(name)
    if name == "metric" and value in METRICS:
        metric = METRICS[str(value)]
        said_already = not metric.unit or metric.unit in metric.label
        return metric.label if said_already else f"{metric.label} ({metric.unit})"
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    scale = _scale(row) if name in table.in_unit else 1.0
    if f"{name}_low" in table.columns:
        estimate = _estimate(row, name)
        return format_share(estimate) if name in table.shares else format_estimate(estimate, scale)
    if name in table.shares:
        return percent(value)
    if name in _CHANCES:
        return number(value, 2)
    return str(value) if isinstance(value, int) else number(scale * value)


def _scale(row: Row) -> float:
    return METRICS[row["metric"]].scale if row.get("metric") in METRICS else 1.0


def _estimate(row: Row, name: str) -> Estimate:
    low, high = (math.nan if row.get(f"{name}{end}") is None else row[f"{name}{end}"]
                 for end in ("_low", "_high"))  # fmt: skip
    return Estimate(row[name], low, high, level=0.95, num_pairs=2, method="")


def _is_text(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(isinstance(row.get(name), str | bool) for row in rows)


def _heading(name: str) -> str:
    return _HEADINGS.get(name) or escape(name.replace("_", " "))
