"""Coverage of an estimator's nominal 95% interval at few pairs, measured in simulated studies.

The numbers are in `coverage.json`, written with `docs/coverage.md` by `benchmarks/coverage.py`.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from bygones.analysis.estimators.by_skewness import SKEWED
from bygones.analysis.estimators.hierarchical import AVERAGED
from bygones.core.catalogue import unknown_name
from bygones.core.text import format_count


@cache
def _measured() -> dict[str, Any]:
    return json.loads(
        resources.files("bygones.analysis").joinpath("coverage.json").read_text("utf-8")
    )


def coverage_table() -> dict[str, dict[str, dict[int, float]]]:
    """Return the measured coverage of nominal 95%: estimator -> kind of pairs -> number of pairs -> share."""
    return {
        name: {
            kind: {int(pairs): share for pairs, share in row.items()}
            for kind, row in entry["coverage"].items()
        }
        for name, entry in _measured()["estimators"].items()
    }


def measured_coverage(estimator: str, num_pairs: int) -> str:
    """Return the coverage measured for an estimator, in words, at the nearest number of pairs not larger.

    `estimator` is its name in the catalogue, or the `method` of an `Estimate`. Below the smallest number
    measured, the sentence says so and gives that one.

    >>> measured_coverage("paired t", 12).split(":")[0]
    'paired t at 12 pairs (measured at 8)'
    """
    measured = _measured()["estimators"]
    methods = {entry["method"]: name for name, entry in measured.items()}
    if estimator not in methods:
        estimator = estimator.removesuffix(AVERAGED)
    if "by_skewness" in measured:
        methods[SKEWED] = "by_skewness"
    name = methods.get(estimator, estimator)
    if name not in methods.values():
        raise unknown_name("estimator", estimator, methods.values())
    method = measured[name]["method"]
    kinds = coverage_table()[name]
    counts = sorted(next(iter(kinds.values())))
    nearest = max((n for n in counts if n <= num_pairs), default=counts[0])
    shares = ", ".join(f"{100 * row[nearest]:.1f}% ({kind})" for kind, row in kinds.items())
    at = "" if nearest == num_pairs else f" (measured at {nearest})"
    pairs = format_count(num_pairs, "pair")
    return f"{method} at {pairs}{at}: a 95% interval covered {shares}"
