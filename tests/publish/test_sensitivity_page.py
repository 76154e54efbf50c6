"""The page of a sensitivity: its files, its words, and tables with every cell."""

import csv
from pathlib import Path

import numpy as np

from bygones.publish.report.sensitivity_page import SensitivityFacts, write_sensitivity


def test_the_page_shows_map_cells_and_sentences(tmp_path: Path) -> None:
    value = np.array([[1.0, 0.5, 0.1], [0.0, np.nan, 1e-9]])
    facts = SensitivityFacts(
        study="small <b>",
        rows=("weights", "moments/exp_avg"),
        steps=np.array([3, 4, 5]),
        map=np.stack([value, 0.9 * value, 1.1 * value]),
        cells=[(0, "weights", 4, 0.5, 0.4), (1, "moments/exp_avg", 3, 0.0, -0.1)],
        sentences=["The map says this.", "Measured at 2 random cells: tangent error 0.2."],
    )
    page = write_sensitivity(facts, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "small &lt;b&gt;" in text
    assert text.index("<svg") < text.index("The map says this.") < text.index("tangent error 0.2")
    with (tmp_path / "out/tables/map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[1] == {
        "source": "weights",
        "step": "4",
        "dependence": "0.5",
        "low": "0.45",
        "high": "0.55",
    }
    with (tmp_path / "out/tables/cells.csv").open() as file:
        assert [row["measured"] for row in csv.DictReader(file)] == ["0.4", "-0.1"]
    assert {path.suffix for path in (tmp_path / "out/figures").iterdir()} >= {
        ".svg",
        ".pdf",
        ".png",
    }
