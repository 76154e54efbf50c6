"""The commands that run somebody's training script, unchanged: argument parsing and nothing else.

Each begins its process again, alone: with one thread, and nothing of its own on the path.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bygones.attach.isolation.environment import begin_alone
from bygones.cli.options import (
    CORES,
    Command,
    Json,
    Probe,
    SeedEnv,
    StoreFolder,
    Workers,
    say_effects,
)

if TYPE_CHECKING:
    from bygones.attach.isolation.script import Script


def sources(
    script: Command,
    at: Annotated[int, typer.Option(min=1, help="The optimizer step to look around at.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The seed to run with.")] = 0,
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """List all memory that a script carries. It is run, unchanged, to a step."""
    begin_alone()
    from bygones.attach.isolation.script import check_script
    from bygones.cli import terminal
    from bygones.scripts.pilot import run_pilot

    given = _given(script, seed_env)
    check_script(given)
    found = run_pilot(given, Path.cwd(), seed, at)
    if as_json:
        print(json.dumps({"step": at, "sources": found.sources}, indent=2))
        return
    terminal.out.print(f"What {found.script} carries across step {at}:")
    terminal.out.print(terminal.inventory_table(found.sources))
    if found.why_not_fork:
        terminal.out.print(
            f"Note: its process cannot be forked, since {found.why_not_fork.rstrip('.')}."
        )


def run_script(
    script: Command,
    fork_at: Annotated[int, typer.Option(min=1, help="The optimizer step to fork at.")] = 100,
    horizons: Annotated[
        str, typer.Option(help="Steps after the fork at which the function is observed.")
    ] = "0,1,3,10,30,100",
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=INTERVENTION:SOURCE[@WINDOW]",
            help="What to do at the fork, like drop=reset:moments, half=scale(0.5):moments or "
            "swap=swap-windows:order@100:120. May be given several times; without it, what can be reset "
            "is reset, and the order and torch's stream are drawn again.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, like 0-31 or 0-3,10.")] = "0-7",
    seed_env: SeedEnv = None,
    probe: Probe = None,
    store: StoreFolder = Path("bygones-store"),
    workers: Workers = CORES,
    name: Annotated[str, typer.Option(help="What to call the study (default: the script).")] = "",
    margin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=SIZE",
            help="Below this size an effect counts as none; declared before the run.",
        ),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Run each arm from the start, even where forking would do."),
    ] = False,
    sufficiency: Annotated[
        bool,
        typer.Option(
            "--sufficiency",
            help="Also report whether all memory was found, by moving it from the first seed's run into the "
            "second's.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Study a training script, unchanged. Its running process is forked into arms, which are compared."""
    begin_alone()
    from bygones.audit.sufficiency import study_sufficiency
    from bygones.cli import terminal
    from bygones.cli.load import parse_margins, parse_seeds, parse_steps
    from bygones.scripts.measure import measure_script
    from bygones.scripts.plan import ScriptRequest, plan_script
    from bygones.store import FolderStore

    asked = ScriptRequest(
        _given(script, seed_env),
        fork_at,
        parse_steps(horizons),
        parse_seeds(seeds),
        tuple(arm or ()),
        probe,
        name,
        parse_margins(margin or []),
        replay=replay,
        sufficiency=sufficiency,
    )
    planned = plan_script(asked, Path.cwd(), FolderStore(store))
    for line in terminal.script_lines(planned, workers):
        terminal.console.print(line)
    checks = [study_sufficiency] if sufficiency else []
    with terminal.progress_of_seeds(planned.plan) as on_seed:
        measure_script(planned, workers, on_seed, checks)
    say_effects(store, planned.plan.study.name, as_json=as_json)


def twin(
    script: Command,
    at: Annotated[int, typer.Option(min=1, help="The optimizer step to fork at.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The seed to run with.")] = 0,
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Prove that watching leaves a script as it is. Watched and forked, it prints and writes the same."""
    begin_alone()
    from bygones.audit.transparency import check_transparency
    from bygones.core.errors import ForkError

    proof = check_transparency(_given(script, seed_env), Path.cwd(), seed, at)
    if not proof.passed:
        raise ForkError(str(proof))
    print(json.dumps(asdict(proof), indent=2) if as_json else proof)


def sufficiency(
    script: Command,
    at: Annotated[int, typer.Option(min=1, help="The step at which memory is moved.")] = 20,
    until: Annotated[int, typer.Option(min=2, help="The step up to which runs are compared.")] = 60,
    seeds: Annotated[str, typer.Option(help="The donor's seed and the recipient's.")] = "0,1",
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Prove that all of a script's memory was found. By moving it into another seed's run."""
    begin_alone()
    from bygones.audit.sufficiency import check_sufficiency
    from bygones.cli.load import parse_seeds
    from bygones.core.errors import DesignError

    pair = parse_seeds(seeds)
    if len(pair) != 2:
        raise DesignError(
            f"--seeds takes two seeds here, the donor's and the recipient's; got {seeds}."
        )
    given = _given(script, seed_env)
    found = check_sufficiency(given, Path.cwd(), (pair[0], pair[1]), at, until)
    print(json.dumps(found.to_dict(), indent=2) if as_json else found)
    if not found.sufficient:
        raise typer.Exit(1)


def observers(
    script: Command,
    until: Annotated[int, typer.Option(min=2, help="Watch for so many optimizer steps.")] = 200,
    horizon: Annotated[
        int, typer.Option(min=1, help="Steps for which twins train on, to see whether it matters.")
    ] = 50,
    seed: Annotated[int, typer.Option(min=0, help="The seed to run with.")] = 0,
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Find the evaluation or save that changes a run. And say what of the run it changes."""
    begin_alone()
    from bygones.audit.observers import find_observers
    from bygones.cli import terminal

    given = _given(script, seed_env)
    found = find_observers(given, Path.cwd(), seed, until, horizon)
    if as_json:
        print(json.dumps([observer.to_dict() for observer in found], indent=2))
    else:
        none = f"{given}: nothing evaluates or saves in its first {until} steps."
        for line in [str(observer) for observer in found] or [none]:
            terminal.out.print(line)
    if any(observer.alters for observer in found):
        raise typer.Exit(1)


def check_resume(
    script: Command,
    resume: Annotated[
        str,
        typer.Option(
            metavar="ARGUMENTS",
            help="Arguments to add when it resumes, like '--resume last.pt'; none if it resumes by itself.",
        ),
    ] = "",
    at: Annotated[
        int | None,
        typer.Option(
            min=1, help="End the process after this step (default: about a third of the run)."
        ),
    ] = None,
    interrupt: Annotated[
        str | None,
        typer.Option(
            metavar="ARGUMENTS",
            help="Arguments to add to make it stop by itself, like '--max-steps 17', instead of --at.",
        ),
    ] = None,
    resume_script: Annotated[
        str | None,
        typer.Option(
            metavar="'SCRIPT ARGUMENTS'",
            help="The whole command that resumes, if it is another one.",
        ),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, help="Steps after the interruption to compare (default: to the end)."),
    ] = None,
    again: Annotated[
        int | None,
        typer.Option(
            min=1, help="Interrupt the resumed run too, after this step, and resume again."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, like 0-7; several give intervals.")] = "0",
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Say what a checkpoint loses, and what that costs. By resuming, and by losing each piece alone."""
    begin_alone()
    from bygones.attach.isolation.script import Script
    from bygones.audit.resume_check import ResumeRequest
    from bygones.audit.resume_check import check_resume as checked
    from bygones.cli import terminal
    from bygones.cli.load import parse_seeds
    from bygones.cli.resume_text import as_table, headline, sentences

    whole = _given(script, seed_env)
    resumed = replace(whole, arguments=(*whole.arguments, *shlex.split(resume)))
    if resume_script is not None:
        path, *arguments = shlex.split(resume_script)
        resumed = Script(path, tuple(arguments), seed_env)
    interrupted = (
        None
        if interrupt is None
        else replace(whole, arguments=(*whole.arguments, *shlex.split(interrupt)))
    )
    asked = ResumeRequest(whole, resumed, interrupted, at, parse_seeds(seeds), horizon, again)
    found = checked(asked, Path.cwd(), lambda run: terminal.console.print(f"Running: {run} …"))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        terminal.out.print(headline(found))
        for sentence in sentences(found):
            terminal.out.print(sentence)
        terminal.out.print(as_table(found))
    if found.failed:
        raise typer.Exit(1)


def ledger_of_script(
    script: list[str],
    out: Path,
    until: int | None,
    every: int,
    seed: int,
    seed_env: str | None,
    optimizer: int,
) -> None:
    begin_alone()
    from bygones.cli import terminal
    from bygones.core.errors import DesignError
    from bygones.scripts.record import record_script

    if until is not None:
        raise DesignError("--until is for recipes; a script is written down to its own end.")
    given = _given(script, seed_env, optimizer)
    terminal.console.print(str(record_script(given, Path.cwd(), seed, every, out)))


def _given(script: list[str], seed_env: str | None, optimizer: int = 0) -> Script:
    """The script that was typed after `--`."""
    from bygones.attach.isolation.script import Script

    return Script(script[0], tuple(script[1:]), seed_env, optimizer)
