"""The page of an attribution: picture first, every share in the table, and a CSV."""

import csv
from pathlib import Path

import numpy as np

from bygones.publish.report.attribution_page import (
    ALL,
    AttributionFacts,
    attribution_figure,
    write_attribution,
)

ROWS = [
    {"treatment": name, "horizon": horizon, "value": value * horizon, "low": -1.0, "high": 9.0}
    for horizon in (1, 3)
    for name, value in (("a <b>", 1.0), ("c", 2.0), (ALL, 3.0))
]
FACTS = AttributionFacts("small", "change of nll", ROWS, ["Found this."])


def test_the_page_shows_picture_sentence_and_table(tmp_path: Path) -> None:
    text = write_attribution(FACTS, tmp_path / "out").read_text(encoding="utf-8")
    assert text.index("<svg") < text.index("Found this.") < text.index("<table>")
    assert text.count("<td>a &lt;b&gt;</td>") == 2
    with (tmp_path / "out/tables/shares.csv").open() as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [r["value"] for r in ROWS]


def test_the_picture_has_a_panel_a_horizon_and_a_dot_a_treatment() -> None:
    panels = attribution_figure(FACTS).axes
    dots = [
        [tuple(map(float, np.asarray(line.get_xydata())[0])) for line in ax.lines[2::2]]
        for ax in panels
    ]
    assert dots == [[(1.0, 0.0), (2.0, 1.0), (3.0, 2.0)], [(3.0, 0.0), (6.0, 1.0), (9.0, 2.0)]]
