"""Commands on studies of a recipe or a script: demo, sources, plan, run, report, compare, check."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bygones.cli import script_study
from bygones.cli.command_types import takes_script
from bygones.cli.design_text import (
    designs_of,
    print_designs,
    print_seeds_needed,
    stored_pilot,
)
from bygones.cli.options import (
    Address,
    Arms,
    Device,
    Executor,
    ForkAt,
    HalfWidth,
    Horizons,
    Json,
    Lanes,
    LaterForks,
    LeadingMetric,
    Margins,
    MaxSeeds,
    Name,
    NoMerge,
    Observe,
    PatienceSeconds,
    Probe,
    RecipeTarget,
    Replay,
    ScriptTarget,
    Seed,
    SeedEnv,
    Seeds,
    Siblings,
    StoredStudy,
    StorePlace,
    StudyName,
    StudyTarget,
    Sufficiency,
    Target,
    UntilHalfwidth,
    Verbose,
    Workers,
)
from bygones.cli.report_files import write_reports
from bygones.cli.resources import (
    default_workers,
    lasting_store,
    make_executor,
    print_effects,
    print_to_stderr,
    read_result,
    split_study,
)
from bygones.core.errors import DesignError

if TYPE_CHECKING:
    from bygones.study.design import Study
    from bygones.study.executors import AbstractExecutor
    from bygones.study.plan import Plan


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for the store and the report.")
    ] = Path("bygones-demo"),
    seeds: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Seeds to train with, like 0-3,10 (default: 0-31)."),
    ] = None,
    workers: Workers = None,
    lanes: Lanes = "auto",
    device: Device = "cpu",
) -> None:
    """Measure a small network on digits and write a report.

    It trains 32 seeds, in about two minutes on two cores. If it is stopped, the same command continues it.

    \b
    Example:
      bygones demo --out bygones-demo
    """
    store = str(out / "store")
    executor = make_executor(None, workers, None, store, device)
    settings = Settings("digits", seeds, store, lanes, device, workers or default_workers(device))
    _run(settings, executor)
    write_reports(store, out, None)


def sources(
    ctx: typer.Context,
    target: RecipeTarget,
    at: Annotated[
        int, typer.Option(metavar="STEP", min=1, help="List what is carried across this step.")
    ] = 20,
    seed: Seed = 0,
    as_json: Json = False,
    seed_env: SeedEnv = None,
    patience: PatienceSeconds = 60.0,
) -> None:
    """List the memory that a recipe or a script carries.

    It is trained up to a step; every source found there is listed with its class, where it can be seen,
    how long it lasts, and its size.

    \b
    Examples:
      bygones sources digits
      bygones sources -- examples/scripts/torchs_ema.py
    """
    if takes_script(ctx, target):
        script_study.print_sources(target, at, seed, seed_env, patience, as_json=as_json)
        return
    from bygones.cli import terminal
    from bygones.cli.load import load_recipe
    from bygones.study.describe import describe_sources
    from bygones.training.contract import Contract
    from bygones.training.run import Run

    with print_to_stderr(), Contract.here().in_force():
        run = Run(load_recipe(target[0]), seed)
        run.advance(at)
        found = [source.to_dict() for source in describe_sources(run)]
    terminal.print_sources(target[0], at, found, as_json=as_json)


def init(
    target: ScriptTarget,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write; it must not exist.")
    ] = Path("study.toml"),
    fork_at: ForkAt = 100,
    seed: Seed = 0,
    seed_env: SeedEnv = None,
) -> None:
    """Write the study of a script as a file, from its memory.

    The script is run up to the fork. The file has an arm for each source that can be reset or drawn
    again, to be edited; `bygones run study.toml` trains it.

    \b
    Example:
      bygones init --fork-at 60 -- examples/scripts/torchs_ema.py --seed {seed}
    """
    script_study.init(target, out, fork_at, seed, seed_env)


def plan(
    ctx: typer.Context,
    target: Target,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    workers: Workers = None,
    as_json: Json = False,
    lanes: Lanes = "auto",
    device: Device = "cpu",
    half_width: HalfWidth = None,
    siblings: Siblings = 0,
    later_forks: LaterForks = None,
    fork_at: ForkAt = 100,
    horizons: Horizons = "0,1,3,10,30,100",
    arm: Arms = None,
    seed_env: SeedEnv = None,
    probe: Probe = None,
    name: Name = "",
    margin: Margins = None,
    replay: Replay = False,
    sufficiency: Sufficiency = False,
    observe: Observe = "",
    metric: LeadingMetric = "",
) -> None:
    """Show what a study will train and what that costs.

    Nothing is stored. A recipe is trained for a few steps, a script once up to the fork, to find its
    memory and to time a step.

    \b
    Examples:
      bygones plan digits --seeds 0-7
      bygones plan --fork-at 60 -- examples/scripts/torchs_ema.py --seed {seed}
    """
    if takes_script(ctx, target):
        request = script_study.make_request(
            target, seed_env, fork_at, horizons, seeds, arm, probe, name, margin, replay,
            sufficiency, observe, metric,
        )  # fmt: skip
        script_study.print_plan(request, store, workers, as_json=as_json)
        return
    from bygones.analysis.power import require_half_width
    from bygones.cli import terminal

    require_half_width(half_width)
    num_workers = workers or default_workers(device)
    settings = Settings(target[0], seeds, store, lanes, device, num_workers, siblings, later_forks)
    with print_to_stderr():
        planned = settings.plan()
    if as_json:
        pilot = stored_pilot(planned)
        designs = [] if pilot is None else map(asdict, designs_of(planned, pilot))
        said = {**terminal.plan_dict(planned, num_workers), "designs": [*designs]}
        print(json.dumps(said, indent=2))
        return
    terminal.print_plan(planned, terminal.plan_lines(planned, num_workers))
    for finding in planned.facts.findings or ():
        terminal.out.print(f"Note: {finding}")
    print_seeds_needed(planned, half_width, num_workers)
    print_designs(planned)


def run(
    ctx: typer.Context,
    target: Target,
    seeds: Seeds = None,
    store: StorePlace = "bygones-store",
    workers: Workers = None,
    as_json: Json = False,
    lanes: Lanes = "auto",
    device: Device = "cpu",
    executor: Executor = None,
    address: Address = None,
    until_halfwidth: UntilHalfwidth = None,
    max_seeds: MaxSeeds = 128,
    no_merge: NoMerge = False,
    siblings: Siblings = 0,
    later_forks: LaterForks = None,
    fork_at: ForkAt = 100,
    horizons: Horizons = "0,1,3,10,30,100",
    arm: Arms = None,
    seed_env: SeedEnv = None,
    probe: Probe = None,
    name: Name = "",
    margin: Margins = None,
    replay: Replay = False,
    sufficiency: Sufficiency = False,
    observe: Observe = "",
    metric: LeadingMetric = "",
    verbose: Verbose = False,
) -> None:
    """Train what a study still lacks and print its effects.

    Effects are printed at the last horizon. The same command continues a run that was stopped; more
    seeds, arms or horizons train only what is new.

    \b
    Examples:
      bygones run digits --seeds 0-7
      bygones run --fork-at 60 -- examples/scripts/torchs_ema.py --seed {seed}
    """
    if takes_script(ctx, target):
        request = script_study.make_request(
            target, seed_env, fork_at, horizons, seeds, arm, probe, name, margin, replay,
            sufficiency, observe, metric,
        )  # fmt: skip
        script_study.run(request, store, workers, as_json=as_json, verbose=verbose)
        return
    num_workers = workers or default_workers(device)
    settings = Settings(target[0], seeds, store, lanes, device, num_workers, siblings, later_forks)
    chosen = make_executor(executor, workers, address, store, device)
    with print_to_stderr():
        if until_halfwidth is None:
            study = _run(settings, chosen, merge=not no_merge)
        else:
            study = _run_until(settings, chosen, until_halfwidth, max_seeds, merge=not no_merge)
    print_effects(store, study, as_json=as_json, verbose=verbose)


def report(
    store: StoredStudy,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report's folder (default: STORE-report)."),
    ] = None,
    study: StudyName = None,
    observe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Lead with this one of the models that were observed (default: the study's).",
        ),
    ] = "",
    for_print: Annotated[
        bool, typer.Option("--for-print", help="Save each figure as PDF and PNG too.")
    ] = False,
    title: Annotated[
        str, typer.Option(metavar="TEXT", help="The page's heading (default: the study's name).")
    ] = "",
    question: Annotated[
        str, typer.Option(metavar="TEXT", help="What was asked, as a sentence on top.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Write the HTML report of a stored study.

    Of a store with several studies, each one's report and a page of all, unless --study names one. With
    --json, print a study's effects and digests instead.

    \b
    Example:
      bygones report bygones-store
    """
    if as_json:
        print_effects(store, study, as_json=True, observe=observe)
    else:
        write_reports(
            store, out, study, observe, for_print=for_print, title=title, question=question
        )


def compare(
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE[:STUDY]...",
            help="Folders or URLs of stores; with the study's name after a colon, if there are several.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of the comparison page.")
    ] = Path("bygones-comparison"),
) -> None:
    """Pool the effects of several stored studies.

    Effects of arms with the same name are pooled by a random-effects meta-analysis, and written on a
    page side by side.

    \b
    Example:
      bygones compare bygones-store bygones-demo/store
    """
    from bygones.analysis.compare_studies import side_by_side
    from bygones.cli import terminal
    from bygones.publish.report import write_comparison

    pooled = side_by_side([read_result(*split_study(text)).outcomes for text in stores])
    for one in pooled:
        terminal.out.print(str(one))
    terminal.out.print(f"Comparison: {write_comparison(pooled, out)}")


def check(
    ctx: typer.Context,
    target: StudyTarget,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Prove that a recipe can be forked without losing state.

    The run is restored at several steps into a run of another seed, and must end equal to the original
    in every bit. A source left out shows whether the run needs it.

    \b
    Example:
      bygones check digits
    """
    if takes_script(ctx, target):
        raise DesignError(
            f"check is for a recipe, and {target[0]} is a script. `bygones audit inventory -- "
            f"{' '.join(target)}` proves the same of a script."
        )
    from bygones.cli.load import load_study
    from bygones.study.certificate import certify
    from bygones.study.plan import plan

    with print_to_stderr():
        certificate = certify(plan(load_study(target[0]), device=device))
    if as_json:
        print(json.dumps(certificate, indent=2))
        return
    boundaries = ", ".join(str(step) for step in certificate["boundaries"])
    print(
        f"Forks at steps {boundaries} are bit-equal to the original at step {certificate['until']}."
    )
    print(f"Needed for that: {', '.join(certificate['needed'])}.")
    if certificate["inert"]:
        print(f"Makes no difference in this run: {', '.join(certificate['inert'])}.")
    if certificate["constant"]:
        names = ", ".join(certificate["constant"])
        print(f"The same in another seed's new run, so not tested: {names}.")


@dataclass(frozen=True)
class Settings:
    """What `plan` and `run` were asked to train, and with what."""

    name: str
    seeds: str | None
    store: str
    lanes: str
    device: str
    num_workers: int
    siblings: int = 0
    later_forks: str | None = None

    def study(self) -> Study:
        """Load the study, with what was asked for in the place of its own."""
        from bygones.cli.load import load_study
        from bygones.cli.values import parse_seeds, parse_steps

        study = load_study(self.name)
        if self.siblings:
            study = replace(study, siblings=self.siblings)
        if self.later_forks is not None:
            study = replace(study, later_forks=parse_steps(self.later_forks))
        return study if self.seeds is None else study.with_seeds(parse_seeds(self.seeds))

    def plan(self) -> Plan:
        """Plan the study into the store."""
        from bygones.cli.values import parse_lanes
        from bygones.study.plan import plan

        study, width = self.study(), parse_lanes(self.lanes)
        store = lasting_store(self.store)
        return plan(study, store, lanes=width, device=self.device, workers=self.num_workers)


def _run(settings: Settings, executor: AbstractExecutor, *, merge: bool = True) -> str:
    """Train what the store lacks, and return the study's name."""
    from bygones.cli import terminal
    from bygones.study.measure import measure

    executor.get_ready()
    planned = settings.plan()
    for line in terminal.plan_lines(planned, settings.num_workers):
        terminal.console.print(line)
    with terminal.progress(planned, planned.study.name) as follow:
        measure(planned.study, executor=executor, merge=merge, planned=planned, on_plan=follow)
    return planned.study.name


def _run_until(
    settings: Settings,
    executor: AbstractExecutor,
    half_width: float,
    max_seeds: int,
    *,
    merge: bool,
) -> str:
    """Add seeds until the intervals are narrow enough, and return the study's name."""
    from bygones.cli import terminal
    from bygones.cli.values import parse_lanes
    from bygones.study.sequential import anytime_estimates, measure_until

    study = settings.study()
    outcomes = measure_until(
        study,
        half_width,
        store=lasting_store(settings.store),
        executor=executor,
        lanes=parse_lanes(settings.lanes),
        device=settings.device,
        merge=merge,
        batch=2 * settings.num_workers,
        max_seeds=max_seeds,
        on_batch=lambda planned: terminal.console.print(
            f"{planned.study.name}: {len(planned.study.seeds)} seeds, {planned.steps_left:,} steps to train. "
            f"{planned.choice.why}"
        ),
    )
    for arm, estimate in anytime_estimates(outcomes).items():
        terminal.console.print(
            f"{arm}: {estimate}, anytime-valid (adding seeds may stop at any number)."
        )
    return study.name
