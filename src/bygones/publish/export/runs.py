"""What is exported of a study, a ledger and a resume check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bygones.core.errors import StoreError
from bygones.core.study_facts import facts_of
from bygones.core.text import format_value
from bygones.publish.export.base import Points, TrackedRun, make_points, plain_name
from bygones.publish.result import Result, load
from bygones.store import is_remote
from bygones.store.ledger import read_ledger


def read_run(place: str, study: str | None = None) -> TrackedRun:
    """Read what is to be exported: a store, a ledger (`.jsonl`), or what `audit resume --json` printed.

    Raises StoreError where there is none of them.
    """
    path = Path(place)
    if not is_remote(place) and path.is_file():
        return ledger_run(path) if path.suffix == ".jsonl" else resume_run(path)
    return study_run(load(place, study))


def study_run(result: Result) -> TrackedRun:
    """Effects with their intervals by horizon, and the mean training loss of each arm by step."""
    facts, curves = facts_of(result.outcomes), dict[str, Points]()
    for arm, metric in dict.fromkeys((one.arm, one.metric) for one in result.effects):
        course = sorted(result.effects.select(arm=arm, metric=metric), key=lambda one: one.horizon)
        horizons = [one.horizon for one in course]
        numbers = {
            "effect": [one.estimate.value for one in course],
            "low": [one.estimate.low for one in course],
            "high": [one.estimate.high for one in course],
            "null": [one.null.value if one.null else float("nan") for one in course],
            "share": [one.fraction.value if one.fraction else float("nan") for one in course],
        }
        for name, values in numbers.items():
            points = make_points(horizons, values)
            if points:
                curves[plain_name(f"{arm}/{metric}/{name}")] = points
    if "train_loss" in result.outcomes:
        losses = result.outcomes["train_loss"].mean("seed", skipna=True)
        for arm in losses["arm"].values.tolist():
            values = losses.sel(arm=arm).values.tolist()
            curves[plain_name(f"{arm}/loss")] = make_points([*range(1, len(values) + 1)], values)
    settings: dict[str, str | int | float] = {
        "recipe": str(facts.recipe),
        "fork_at": facts.fork_at,
        "seeds": result.outcomes.sizes["seed"],
        "horizons": ", ".join(str(h) for h in result.outcomes["horizon"].values),
    }
    tags = {f"digest of {name}": str(value) for name, value in facts.digests.items()}
    tags |= {f"verdict of {plain_name(one.arm)}": one.verdict for one in result.readings}
    return TrackedRun(facts.study, settings, tags, curves)


def ledger_run(path: Path) -> TrackedRun:
    """The loss at each recorded boundary, and the contract; the ledger itself as a file."""
    ledger = read_ledger(path)
    steps = [entry["step"] for entry in ledger.entries if entry.get("loss") is not None]
    losses = [float(e["loss"]) for e in ledger.entries if e.get("loss") is not None]
    head = ledger.header
    settings: dict[str, str | int | float] = {"run": str(head.get("run", ""))}
    settings |= {name: int(head[name]) for name in ("seed", "every") if name in head}
    tags = {"complete": format_value(ledger.complete)}
    if ledger.entries:
        tags["last entry"] = str(ledger.entries[-1]["entry"])
    tags |= {
        f"contract {key}": format_value(one) for key, one in dict(head.get("contract", {})).items()
    }
    return TrackedRun(path.stem, settings, tags, {"loss": make_points(steps, losses)}, (path,))


def resume_run(path: Path) -> TrackedRun:
    """The verdict on each source as a tag, how far each loss moves the function, and whether it passed."""
    found = _read_check(path)
    step = int(found["until"])
    curves: dict[str, Points] = {"failed": ((step, float(len(found["failed"]))),)}
    for cost in found["costs"]:
        named = plain_name("/".join(filter(None, (cost["source"], cost["module"]))))
        moved = [float(value) for value in cost["by_seed"] if value is not None]
        if moved:
            curves[f"{named}/moved by this loss"] = ((step, sum(moved) / len(moved)),)
        if cost["ceiling"] is not None:
            curves["another seed"] = ((step, float(cost["ceiling"])),)
    settings: dict[str, str | int | float] = {
        key: found[key] for key in ("script", "interrupted_at", "start", "until")
    }
    tags = {
        plain_name(one["source"]): f"{one['outcome']}: {one['why']}" for one in found["verdicts"]
    }
    tags["passed"] = format_value(found["passed"])
    script = Path(str(found["script"]).partition(" ")[0]).name
    return TrackedRun(f"resume {script}", settings, tags, curves, (path,))


def _read_check(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = {"verdicts", "costs", "failed", "passed", "until", "script"} - found.keys()
    except (ValueError, AttributeError):
        found, missing = {}, {"everything"}
    if missing:
        raise StoreError(
            f"{path} is no store, no ledger (.jsonl), and not what `bygones audit resume --json` prints."
        )
    return found
