"""The page of a regime map: picture first, table, rules, and a CSV of every cell."""

import csv
from pathlib import Path

from bygones.publish.report.regime_page import REGIMES, RegimeFacts, write_regimes


def test_the_page_shows_picture_table_and_rules(tmp_path: Path) -> None:
    cells = [
        {"rate": rate, "dose": dose, "horizon": h, "regime": REGIMES[(i + j + h) % 4], "error": 0.5}
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
    with (tmp_path / "out/tables/cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["regime"] for row in rows] == [cell["regime"] for cell in cells]
