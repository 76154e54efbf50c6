"""The page of a regime map: picture first, table, rules, and a CSV of every cell."""

import csv
from pathlib import Path

import numpy as np

from bygones.publish.report.regime_page import REGIMES, RegimeFacts, regime_figure, write_regimes


def test_the_page_shows_picture_table_and_rules(tmp_path: Path) -> None:
    cells = [
        {
            "rate": rate,
            "dose": dose,
            "horizon": h,
            "regime": REGIMES[(i + j + h) % 4],
            "reason": "1 of 8 seeds diverged",
            "error": 0.123456 if h == 20 else 0.987654,
        }
        for i, rate in enumerate((0.1, 0.2))
        for j, dose in enumerate((0.01, 1.0))
        for h in (1, 20)
    ]
    facts = RegimeFacts("small <b>", cells, ["Found this."], [("linear", "the rule of it.")])
    page = write_regimes(facts, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "small &lt;b&gt;" in text
    order = ["<svg", "Found this.", "<table>", "the rule of it."]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert text.count("<tr>") == 1 + 4  # the last horizon alone
    assert text.count("<td>0.123</td>") == text.count("<td>1 of 8 seeds diverged</td>") == 4
    assert "<td>0.988</td>" not in text
    with (tmp_path / "out/tables/cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["regime"] for row in rows] == [cell["regime"] for cell in cells]


def test_the_picture_marks_every_cell_and_draws_a_border_where_regimes_meet() -> None:
    """Two learning rates across and two doses upwards; only the cell at the top right is another one."""
    cells = [
        {"rate": rate, "dose": dose, "horizon": 1, "regime": REGIMES[rate * dose == 0.2]}
        for rate in (0.2, 0.1)
        for dose in (1.0, 0.01)
    ]
    (panel,) = regime_figure(RegimeFacts("small", cells, [], [])).axes
    marks = {tuple(map(int, text.get_position())): text.get_text() for text in panel.texts}
    assert marks == {(0, 0): "L", (1, 0): "L", (0, 1): "L", (1, 1): "N"}
    borders = {tuple(map(float, np.asarray(line.get_xydata()).ravel())) for line in panel.lines}
    assert borders == {(0.5, 0.5, 0.5, 1.5), (0.5, 0.5, 1.5, 0.5)}
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0.1", "0.2"]
