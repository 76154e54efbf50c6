"""What `bygones plan` says of the study's design: how many seeds are needed, and which design pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from bygones.analysis.designs import Design
    from bygones.study.plan import Plan


def print_seeds_needed(planned: Plan, half_width: float | None, num_workers: int) -> None:
    """Print how many seeds each arm's excess needs, judged by the stored seeds; for None, nothing."""
    if half_width is None:
        return
    from bygones.analysis.power import seeds_needed
    from bygones.cli import terminal
    from bygones.store.outcomes import read_manifest, read_outcomes
    from bygones.study.sequential import judged_pairs

    outcomes = read_outcomes(planned.store, read_manifest(planned.store, planned.study.name))
    steps_a_seed = planned.steps_shared / len(planned.study.seeds)
    for arm, pilot in judged_pairs(outcomes).items():
        needed = seeds_needed(pilot, half_width=half_width)
        steps = needed.num_pairs * steps_a_seed
        time = terminal.duration(steps * planned.seconds_a_step / num_workers)
        terminal.out.print(f"{arm}: {needed} That is {steps:,.0f} steps, about {time}.")


def stored_pilot(planned: Plan) -> xr.Dataset | None:
    """Return the study's stored outcomes, None below the three seeds that designs are judged from."""
    from bygones.core.errors import StoreError, UnknownName
    from bygones.store.outcomes import read_manifest, read_outcomes

    try:
        manifest = read_manifest(planned.store, planned.study.name)
    except (StoreError, UnknownName):
        return None
    return read_outcomes(planned.store, manifest) if len(manifest.seeds) >= 3 else None


def designs_of(planned: Plan, pilot: xr.Dataset) -> list[Design]:
    """Return what each design takes for the planned seeds' half-width, judged by the stored ones."""
    from bygones.analysis.designs import compare_designs

    return compare_designs(pilot, planned.costs(), num_seeds=len(planned.study.seeds))


def print_designs(planned: Plan) -> None:
    """Print which design pays, judged by the study's stored seeds, or how to tell where there are none."""
    from bygones.analysis.designs import how_to_tell
    from bygones.cli import terminal

    pilot = stored_pilot(planned)
    if pilot is None:
        terminal.out.print(
            f"Which design pays (siblings, several forks) is told from three stored seeds: run "
            f"{planned.study.name} with --seeds 0-3 --siblings 2 as a pilot, and plan again."
        )
        return
    terminal.print_designs(designs_of(planned, pilot), pilot.sizes["seed"])
    if how_to_tell(pilot):
        terminal.out.print(how_to_tell(pilot))
