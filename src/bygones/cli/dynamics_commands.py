"""Commands on the kind of memory: map, sensitivity, attribute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bygones.cli.options import Json, Seeds, StorePlace, StudyTarget, Workers
from bygones.cli.resources import (
    default_workers,
    lasting_store,
    make_executor,
    path_beside,
    print_to_stderr,
)

if TYPE_CHECKING:
    from bygones.dynamics.attribution import Shares
    from bygones.dynamics.regime_map import Cell, RegimeMap
    from bygones.dynamics.sensitivity import Sensitivity
    from bygones.study.design import Study


def sensitivity(
    name: StudyTarget,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    workers: Workers = None,
    cells: Annotated[
        int, typer.Option(metavar="N", min=2, help="True effects to measure in each seed.")
    ] = 8,
    size: Annotated[
        float, typer.Option(metavar="X", help="Relative size of the nudges: 0.01 is one percent.")
    ] = 0.01,
    start: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="First step of the map (default: the study's fork)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The page's folder (default: STORE-sensitivity)."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what it costs, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Map where a study's outcome depends on its memory.

    One reverse sweep a seed gives the first-order effect on the loss of the probe set of every source at
    every step; true effects are measured at random places. The same command continues one that was stopped.

    \b
    Example:
      bygones dynamics sensitivity digits --seeds 0-3 --cells 8
    """
    from bygones.cli import terminal
    from bygones.dynamics.sensitivity import is_done, jobs_of, sensitivity
    from bygones.publish.report.sensitivity_page import write_sensitivity

    num_workers = workers or default_workers("cpu")
    with print_to_stderr():
        study, place = _load(name[0], seeds), lasting_store(store)
        jobs = jobs_of(study, place, num_cells=cells, size=size, start=start)
        left = [job for job in jobs if not is_done(job)]
        _print_cost(study.name, jobs[0], len(left), cells)
        if plan:
            return
        executor = make_executor(None, num_workers, None, store, "cpu")
        found = sensitivity(
            study,
            place,
            executor,
            num_cells=cells,
            size=size,
            start=start,
            on_job=_counter(study.name, len(left), "seeds mapped"),
        )
    page = write_sensitivity(_facts(found), out or path_beside(store, "sensitivity"))
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
        return
    for sentence in found.sentences():
        terminal.out.print(sentence)
    terminal.out.print(f"Page: {page}")


def _print_cost(name: str, job: Any, seeds_left: int, cells: int) -> None:
    """Print the steps of what is left: forward, backward, and half of them for each true effect."""
    from bygones.cli import terminal

    steps = job.stop - job.start
    terminal.console.print(
        f"{name}: {seeds_left} seeds to map over {steps:,} steps; each takes {job.stop:,} steps forward, "
        f"{steps:,} backward (each as long as several forward), and about {cells * steps // 2:,} for {cells} "
        f"true effects."
    )


def _facts(found: Sensitivity) -> Any:
    from bygones.publish.report.sensitivity_page import SensitivityFacts

    cells = [(c.seed, c.row, c.step, c.predicted, c.measured) for c in found.cells]
    return SensitivityFacts(
        found.study, found.rows, found.steps, found.intervals(), cells, found.sentences()
    )


def _as_json(found: Sensitivity) -> dict[str, Any]:
    return {
        "study": found.study,
        "seeds": list(found.seeds),
        "sources": list(found.rows),
        "steps": [int(found.steps[0]), int(found.steps[-1])],
        "size": found.size,
        "measured": len(found.pairs[0]),
        "tangent_error": found.error,
        "rank_correlation": found.rank,
        "slope": found.slope,
        "left_out": list(found.left_out),
        "cost": found.cost,
        "sentences": found.sentences(),
    }


def map_regimes(
    name: StudyTarget,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    workers: Workers = None,
    arm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The arm (default: the study's first).")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Learning rates, like 0.05,0.1 (default: an eighth to 8 times its own).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The page's folder (default: STORE-regimes).")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what it costs, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Map where an effect is linear, non-linear or chaotic.

    By learning rate, dose and horizon, with the rules on the page. The same command continues one that was
    stopped.

    \b
    Example:
      bygones dynamics map docs/examples/digits_regimes.py:tanh --rates 0.05,0.2
    """
    from bygones.cli import terminal
    from bygones.dynamics.regime_map import default_rates, is_done, jobs_of, regime_map
    from bygones.publish.report.regime_page import write_regimes

    with print_to_stderr():
        study, place = _load(name[0], seeds), lasting_store(store)
        chosen = default_rates(study) if rates is None else _parse_rates(rates)
        jobs = jobs_of(study, place, rates=chosen, arm=arm)
        left = [job for job in jobs if not is_done(job)]
        steps = 2 * jobs[0].at + (len(jobs[0].doses) + 5) * jobs[0].horizons[-1]
        terminal.console.print(
            f"{study.name}: {len(left)} of {len(jobs)} runs left (learning rates times seeds), each of "
            f"{steps:,} steps in float64."
        )
        if plan:
            return
        executor = make_executor(None, workers or default_workers("cpu"), None, store, "cpu")
        count = _counter(study.name, len(left), "runs done")
        found = regime_map(study, place, executor, rates=chosen, arm=arm, on_job=count)
    facts = _regime_facts(found)
    page = write_regimes(facts, out or path_beside(store, "regimes"))
    if as_json:
        print(json.dumps({"study": found.study, "cells": facts.cells}, indent=2, default=str))
        return
    for sentence in found.sentences():
        terminal.out.print(sentence)
    terminal.out.print(f"Page: {page}")


def attribute(
    name: StudyTarget,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    workers: Workers = None,
    sources: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Sources, like moments,averages (default: all but weights)."
        ),
    ] = None,
    value: Annotated[
        str, typer.Option(metavar="NAME", help="What is shared out: a score like nll, or function.")
    ] = "function",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The page's folder (default: STORE-attribution)."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what it costs, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Share out the effect of losing all but the weights.

    Resets every set of up to six sources at the fork, and gives each its exact Shapley value. The same
    command continues one that was stopped.

    \b
    Example:
      bygones dynamics attribute digits --sources moments,batchnorm --seeds 0-7
    """
    from bygones.cli import terminal
    from bygones.dynamics.attribution import Attribution, resets
    from bygones.publish.report.attribution_page import write_attribution
    from bygones.study.measure import measure
    from bygones.study.plan import plan as plan_study

    num_workers = workers or default_workers("cpu")
    with print_to_stderr():
        study, place = _load(name[0], seeds), lasting_store(store)
        chosen = [] if sources is None else sources.split(",")
        arms = resets(study.recipe, study.fork_at, study.seeds[0], chosen)
        quantity = Attribution(arms, study.horizons, value)
        designed = quantity.design(study.recipe, study.fork_at, study.seeds)
        planned = plan_study(designed, place, workers=num_workers)
        terminal.print_plan(planned, terminal.plan_lines(planned, num_workers))
        if plan:
            return
        count = _counter(study.name, len(planned.seeds_left), "jobs done")
        executor = make_executor(None, num_workers, None, store, "cpu")
        found = quantity.estimate(measure(designed, place, executor, planned=planned, on_job=count))
    facts = _attribution_facts(study.name, found)
    page = write_attribution(facts, out or path_beside(store, "attribution"))
    if as_json:
        print(json.dumps({"study": study.name, "of": facts.of, "shares": facts.rows}, indent=2))
        return
    terminal.out.print(str(found))
    terminal.out.print(f"Page: {page}")


def _attribution_facts(study: str, found: Shares) -> Any:
    from bygones.publish.report.attribution_page import ALL, AttributionFacts

    of = (
        "squared change of the function"
        if found.value == "function"
        else f"change of {found.value}"
    )
    rows = [
        {
            "treatment": name, "horizon": horizon, "value": one.value, "low": one.low,
            "high": one.high, "seeds": one.num_pairs,
        }
        for place, horizon in enumerate(found.horizons)
        for name, one in zip(
            [*found.names, ALL], [*(s[place] for s in found.shapley), found.total[place]], strict=True
        )
    ]  # fmt: skip
    return AttributionFacts(study, of, rows, [str(found)])


def _load(name: str, seeds: str | None) -> Study:
    """Load a study, with other seeds if they were asked for."""
    from bygones.cli.load import load_study
    from bygones.cli.values import parse_seeds

    study = load_study(name)
    return study if seeds is None else study.with_seeds(parse_seeds(seeds))


def _counter(name: str, total: int, what: str) -> Callable[[int], None]:
    """Return a function that prints how many jobs are done, to be called after each."""
    from bygones.cli import terminal

    done: list[int] = []

    def count(job: int) -> None:
        done.append(job)
        terminal.console.print(f"{name}: {len(done)} of {total} {what}.")

    return count


def _parse_rates(text: str) -> list[float]:
    from bygones.core.errors import DesignError

    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise DesignError(
            f"--rates are numbers with commas, like 0.05,0.1; got '{text}'."
        ) from None


def _regime_facts(found: RegimeMap) -> Any:
    from bygones.dynamics.regime_map import RULES
    from bygones.publish.report.regime_page import RegimeFacts

    cells = [_regime_row(cell) for cell in found.cells]
    return RegimeFacts(f"{found.study}, {found.arm}", cells, found.sentences(), RULES)


def _regime_row(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"rate": cell.rate, "dose": cell.dose, "horizon": cell.horizon}
    row |= {"regime": cell.regime, "reason": cell.reason}
    for name in ("error", "cosine", "exponent", "growth", "churn"):
        estimate = getattr(cell, name)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row
