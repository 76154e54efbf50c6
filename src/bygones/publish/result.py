"""Result of a study: its outcomes and effects, read from a store, for a notebook or a program.

result = bygones.load("bygones-store")
result                              # the summary table
result.outcomes                     # xarray: seed, arm, step, input, class
result.effects.to_dataframe()       # a row for each arm, horizon and metric
result.plot()                       # the picture of the report's first screen
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects, default_metrics, headline_metric
from bygones.analysis.observed_models import observing
from bygones.core.notebook_text import html_table
from bygones.core.study_facts import facts_of
from bygones.core.text import format_count
from bygones.publish.summary import COLUMNS, Summary, summarize
from bygones.publish.verdicts import (
    Reading,
    format_effect_share,
    format_estimate,
    readings,
)
from bygones.store import open_existing
from bygones.store.outcomes import check_records, read_manifest, read_outcomes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Effects(tuple[Effect, ...]):
    """Effects of a study by arm, horizon and metric; each prints as a sentence with all its references."""

    __slots__ = ()

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row for each effect: estimates, ends of intervals, pairs, methods, references.

        The columns are those of the report's `effects.csv`; numbers are in the metric's own scale.
        """
        import pandas as pd

        from bygones.publish.report.tables import effects_table

        table = effects_table(self)
        return pd.DataFrame([dict(row) for row in table.rows], columns=[*table.columns])

    def select(
        self, *, arm: str | None = None, horizon: int | None = None, metric: str | None = None
    ) -> Effects:
        """Return those of one arm, horizon (steps since the fork) or metric."""
        wanted = {"arm": arm, "horizon": horizon, "metric": metric}
        return Effects(
            effect
            for effect in self
            if all(
                value is None or getattr(effect, name) == value for name, value in wanted.items()
            )
        )

    def _repr_html_(self) -> str:
        """Return each effect with its interval and its share of another seed, for a notebook."""
        rows = [
            (
                e.arm,
                e.horizon,
                e.metric,
                format_estimate(e.estimate, e.facts.scale),
                format_effect_share(e),
            )
            for e in self
        ]
        columns = ("arm", "horizon", "metric", "effect", "of another seed")
        return html_table(repr(self)[1:-1], columns, rows)

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        arms = len({effect.arm for effect in self})
        return f"<{format_count(len(self), 'effect')} of {format_count(arms, 'arm')}>"


@dataclass(frozen=True)
class Result:
    """Outcomes of a study, and what they say: effects, the summary of the last horizon, a picture, a report.

    `outcomes`: as `read_outcomes` gives them, with the coordinate `horizon`, steps since the fork.

    >>> Result(bygones.measure(study))  # doctest: +SKIP
    """

    outcomes: xr.Dataset

    def __post_init__(self) -> None:
        fork_at = facts_of(self.outcomes).fork_at
        horizon = ("step", self.outcomes["step"].values - fork_at)
        object.__setattr__(self, "outcomes", self.outcomes.assign_coords(horizon=horizon))

    @cached_property
    def effects(self) -> Effects:
        """Every arm's effect at every horizon in the metrics that a report shows."""
        return Effects(all_effects(self.outcomes, default_metrics(self.outcomes)))

    @cached_property
    def readings(self) -> list[Reading]:
        """Each arm's effects over the horizons in the leading distance, with its verdict."""
        metric = headline_metric(self.outcomes)
        return readings(all_effects(self.outcomes, [metric]), metric)

    @property
    def summary(self) -> Summary:
        """The table that `bygones run` prints: every arm at the last horizon, with its references."""
        return summarize(self.readings)

    def plot(self) -> Figure:
        """Draw every arm at the last horizon as a share of another seed, beside its null."""
        from bygones.publish.report.answer_figure import answer

        return answer(self.readings)

    def write_report(
        self, folder: str | Path, *, for_print: bool = False, title: str = "", question: str = ""
    ) -> Path:
        """Write the report into a folder, and return the path of its HTML file.

        `for_print`: save the figures as PDF and PNG too. `title`, `question`: the page's heading, and a
        sentence below it that says what was asked.
        """
        from bygones.publish.report import write_report

        return write_report(
            self.outcomes,
            folder,
            effects=self.effects,
            for_print=for_print,
            title=title,
            question=question,
        )

    def __str__(self) -> str:
        return str(self.summary)

    def __repr__(self) -> str:
        sizes = self.outcomes.sizes
        seeds, arms = format_count(sizes["seed"], "seed"), format_count(sizes["arm"], "arm")
        horizons = ", ".join(str(value) for value in self.outcomes["horizon"].values)
        return f"<Result of {facts_of(self.outcomes).study}: {seeds}, {arms}, horizons {horizons}>"

    def _repr_html_(self) -> str:
        """Return the summary as a table, for a notebook."""
        title = f"{facts_of(self.outcomes).study}: {self.summary.heading}"
        return html_table(title, COLUMNS, self.summary.rows, self.summary.notes)


def load(place: str | os.PathLike[str], study: str | None = None, observe: str = "") -> Result:
    """Read a stored study, and return its result.

    `place`: a store's folder or URL. `study`: its name, where the store holds several. `observe`: which of
    the observed models leads (default: the study's own).
    Raises StoreError where there is no store or no finished study, UnknownName for another name.

    >>> bygones.load("bygones-store").plot()  # doctest: +SKIP
    """
    store = open_existing(os.fspath(place))
    manifest = read_manifest(store, study)
    outcomes = read_outcomes(store, manifest)
    check_records(store, manifest)
    return Result(observing(outcomes, observe) if observe else outcomes)
