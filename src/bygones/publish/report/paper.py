r"""Files for a paper: one table of four columns, the whole tables as an appendix, and an entry to cite.

The table fits the 345 pt of LaTeX's article class: an interval stands below its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bygones.analysis.metrics import METRICS
from bygones.core.study_facts import StudyFacts
from bygones.core.text import format_count
from bygones.publish.report.latex import escape
from bygones.publish.verdicts import Reading, format_effect_share, format_estimate

_HEAD = r"Arm & Effect & Of another seed & Excess over null \\"


def write_paper(
    readings: Sequence[Reading], facts: StudyFacts, folder: Path, tables: Sequence[str]
) -> None:
    """Write `paper.tex`, `appendix.tex` and `study.bib` into a folder that has the files of `tables`."""
    (folder / "paper.tex").write_text(paper_table(readings, facts), encoding="utf-8", newline="\n")
    (folder / "appendix.tex").write_text(appendix(tables), encoding="utf-8", newline="\n")
    (folder / "study.bib").write_text(bibtex(facts) + "\n", encoding="utf-8", newline="\n")


def paper_table(readings: Sequence[Reading], facts: StudyFacts) -> str:
    """Return the answer as a table for LaTeX: each arm at the last horizon, with its references."""
    last = readings[0].last
    metric = METRICS[last.metric]
    unit = f" ({metric.unit})" if metric.unit and metric.unit not in metric.label else ""
    after = format_count(last.horizon, "step")
    caption = (
        f"Effect on the function {after} after the fork at step {facts.fork_at}, in "
        f"{metric.label}{unit}, with {100 * last.estimate.level:g}% intervals over "
        f"{format_count(last.estimate.num_pairs, 'seed pair')} ({last.estimate.method}). Null: a random "
        f"change of the same source, as large."
    )
    rows = [_row(reading) for reading in readings]
    return "\n".join([
        r"% \usepackage{booktabs}",
        r"\begin{table}", r"\centering\footnotesize", rf"\caption{{{escape(caption)}}}\label{{tab:bygones}}",
        r"\begin{tabular}{@{}p{0.30\linewidth}rrr@{}}", r"\toprule", _HEAD, r"\midrule",
        *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def appendix(tables: Sequence[str]) -> str:
    r"""Return a file that shows every whole table, scaled to the width of a page on its side.

    >>> r"\input{tables/effects}" in appendix(["effects"])
    True
    """
    lines = [
        r"% \usepackage{booktabs,longtable,textcomp,pdflscape}",
        r"% \input{tables/appendix}, from the folder of the report",
        r"\begin{landscape}", r"\setlength{\tabcolsep}{3pt}",
    ]  # fmt: skip
    lines += [rf"\input{{tables/{name}}}" for name in tables]
    return "\n".join([*lines, r"\end{landscape}", ""])


def bibtex(facts: StudyFacts) -> str:
    """Return an entry for BibTeX that names the study by its digest, so that a reader can check which it was.

    >>> print(bibtex(StudyFacts((), 0, study="spirals", digests={"study": "ab" * 32})))
    @misc{bygones-abababababab,
      title = {spirals: a study of training history},
      howpublished = {Measured with bygones},
      note = {Digest of the study: abababababababababababababababababababababababababababababababab},
    }
    """
    digest = facts.digests.get("study", "")
    return "\n".join([
        f"@misc{{bygones-{digest[:12] or 'study'},",
        f"  title = {{{escape(facts.study)}: a study of training history}},",
        "  howpublished = {Measured with bygones},",
        *([f"  note = {{Digest of the study: {digest}}},"] if digest else []),
        "}",
    ])  # fmt: skip


def _row(reading: Reading) -> str:
    last = reading.last
    scale = last.facts.scale
    cells = (
        format_estimate(last.estimate, scale),
        format_effect_share(last),
        format_estimate(last.excess, scale, signed=True),
    )
    # After a line's end LaTeX would read a leading bracket or star as an option of it.
    return " & ".join(["{}" + escape(reading.arm), *map(_stack, cells)]) + r" \\"


def _stack(cell: str) -> str:
    """Return a value with its interval below it."""
    value, bracket, interval = cell.partition(" [")
    if not bracket:
        return escape(cell)
    return rf"\shortstack[r]{{{escape(value)}\\{{[{escape(interval)}}}}}"
