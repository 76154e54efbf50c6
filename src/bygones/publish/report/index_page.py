"""Page of a store's studies: the answer of each in a few lines, and a link to its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from bygones.analysis.effects import all_effects, headline_metric
from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.files import whole_folder
from bygones.core.study_facts import facts_of
from bygones.publish.report.page import render_template, slug
from bygones.publish.verdicts import group_arms, readings


def write_index(studies: Sequence[xr.Dataset], folder: str | Path, store: str) -> Path:
    """Write a page of several studies into `folder`, and return the path of its `index.html`.

    `studies`: their outcomes. The report of each is to be written into `folder / report_folder(name)`.
    `store`: where they come from, as the page names it. Raises DesignError without any study.
    """
    if not studies:
        raise DesignError("a page of studies shows at least one, and was handed none.")
    rows = [_describe(outcomes) for outcomes in studies]
    with whole_folder(Path(folder)) as filled:
        text = render_template("index.html.j2", {"studies": rows, "store": store})
        (filled / "index.html").write_text(text, encoding="utf-8")
    return Path(folder) / "index.html"


def report_folder(study: str) -> str:
    """Return the name of the folder that the report of a study is in; no two studies have the same.

    >>> report_folder("digits"), report_folder("Digits!")
    ('digits', 'digits-fa55d736')
    """
    plain = slug(study)
    return plain if plain == study else f"{plain}-{digest(study)[:8]}"


def _describe(outcomes: xr.Dataset) -> dict[str, Any]:
    facts, metric = facts_of(outcomes), headline_metric(outcomes)
    read = readings(all_effects(outcomes, [metric]), metric)
    return {
        "name": facts.study,
        "href": f"{report_folder(facts.study)}/report.html",
        "num_pairs": outcomes.sizes["seed"],
        "fork_at": facts.fork_at,
        "horizon": read[0].last.horizon,
        "has_shares": read[0].last.fraction is not None,
        "lines": group_arms(read),
    }
