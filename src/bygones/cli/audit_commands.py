"""Commands that audit an unmodified script: resume, inventory, observers, transparency.

Each restarts its process in isolation first (`begin_alone`): with one thread, and without the working
directory on the import path. So torch is imported only after that.
"""

from __future__ import annotations

import gc
import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from bygones.attach.isolation.environment import begin_alone
from bygones.attach.isolation.fresh_interpreter import other_hashes
from bygones.attach.job.launch import is_launch
from bygones.cli.options import Json, PatienceSeconds, ScriptTarget, Seed, SeedEnv
from bygones.cli.script_study import make_job, make_script


def resume(
    script: ScriptTarget,
    resume: Annotated[
        str,
        typer.Option(
            metavar="ARGUMENTS",
            help="Add these arguments to resume, like '--resume last.pt' (default: none, for a script that "
            "resumes by itself).",
        ),
    ] = "",
    at: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            min=1,
            help="End the process after this step (default: about a third of the run).",
        ),
    ] = None,
    interrupt: Annotated[
        str | None,
        typer.Option(
            metavar="ARGUMENTS",
            help="Instead of --at: add these arguments to make the script stop by itself, like '--max-steps "
            "17'.",
        ),
    ] = None,
    resume_script: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Instead of --resume: script and arguments that resume, like 'resume.py last.pt'.",
        ),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Compare this many steps after the interruption (default: to the end).",
        ),
    ] = None,
    again: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            min=1,
            help="Interrupt the resumed run after this step, and resume it too.",
        ),
    ] = None,
    smoke: Annotated[
        str | None,
        typer.Option(
            metavar="ARGUMENTS",
            help="A quick check before a long job: add these arguments, like '--max-steps 40', to every run, "
            "take one seed, and compare 20 steps.",
        ),
    ] = None,
    then: Annotated[
        str,
        typer.Option(
            metavar="ARGUMENTS",
            help="Also resume with these arguments added, like '--batch-size 64', and measure what that "
            "changes by design.",
        ),
    ] = "",
    then_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Also resume with this environment variable, like OMP_NUM_THREADS=2; repeat for more.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Seeds to train with, like 0-7; several give intervals (default: 0, and 1-2 if something is "
            "lost and they take less than a minute).",
        ),
    ] = None,
    seed_env: SeedEnv = None,
    patience: PatienceSeconds = 60.0,
    as_json: Json = False,
) -> None:
    """Find which state a checkpoint fails to restore.

    The script is run uninterrupted, interrupted and resumed. Each source of memory gets a verdict: PASS,
    FAIL or ABSTAIN; for each failure, how far that omission alone moves the trained function. The exit code
    is 1 if a source fails.

    \b
    Example:
      bygones audit resume --resume "--resume last.pt" -- \\
          examples/resuming/plain.py --seed {seed}
    """
    begin_alone()
    # A new Python imports torch while this one does.
    with nullcontext() if is_launch(script) else other_hashes() as interpreter:
        gc.disable()  # until `warm`, when all is imported
        from bygones.attach.job.run import Patience
        from bygones.audit.resume_check import audit_resume
        from bygones.audit.resuming.request import ResumeRequest
        from bygones.cli import terminal
        from bygones.cli.resume_text import print_check
        from bygones.cli.values import parse_seeds, parse_variables, split_words

        whole = make_job([*script, *split_words(smoke or "", "--smoke")], seed_env)
        if smoke is not None:
            seeds, horizon = seeds or "0", horizon or 20
        resumed = replace(whole, arguments=(*whole.arguments, *split_words(resume, "--resume")))
        if resume_script is not None:
            other = make_job(split_words(resume_script, "--resume-script") or [""], seed_env)
            resumed = replace(other, processes=other.processes or whole.processes)
        interrupted = (
            None
            if interrupt is None
            else replace(
                whole, arguments=(*whole.arguments, *split_words(interrupt, "--interrupt"))
            )
        )
        request = ResumeRequest(
            whole,
            resumed,
            interrupted,
            at,
            () if seeds is None else parse_seeds(seeds),
            horizon,
            again,
            tuple(split_words(then, "--then")),
            parse_variables(then_env or []),
            Patience(idle=patience),
        )
        found = audit_resume(
            request,
            Path.cwd(),
            lambda run: terminal.console.print(f"Running: {run} …"),
            interpreter,
        )
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print_check(found)
    if found.failed:
        raise typer.Exit(1)


def inventory(
    script: ScriptTarget,
    at: Annotated[
        int, typer.Option(metavar="STEP", min=1, help="Copy the memory after this step.")
    ] = 20,
    until: Annotated[
        int, typer.Option(metavar="STEP", min=2, help="Compare the runs up to this step.")
    ] = 60,
    seeds: Annotated[
        str, typer.Option(metavar="LIST", help="Two seeds: the donor's and the recipient's.")
    ] = "0,1",
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Prove that all memory of a script is found.

    Everything found in one seed's run is copied into another's, which must then continue as the first to
    the bit. Each source is left out in turn to see whether it is needed. The exit code is 1 if the
    inventory is incomplete.

    \b
    Example:
      bygones audit inventory -- examples/scripts/torchs_ema.py --seed {seed}
    """
    begin_alone()
    from bygones.audit.sufficiency import check_sufficiency
    from bygones.cli.values import parse_seeds
    from bygones.core.errors import DesignError

    pair = parse_seeds(seeds)
    if len(pair) != 2:
        raise DesignError(
            f"invalid --seeds '{seeds}': expected two seeds, the donor's and the recipient's, like 0,1; got "
            f"{len(pair)}."
        )
    found = check_sufficiency(
        make_script(script, seed_env), Path.cwd(), (pair[0], pair[1]), at, until
    )
    print(json.dumps(found.to_dict(), indent=2) if as_json else found)
    if not found.sufficient:
        raise typer.Exit(1)


def observers(
    script: ScriptTarget,
    until: Annotated[
        int, typer.Option(metavar="STEP", min=2, help="Watch the script up to this step.")
    ] = 200,
    horizon: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Train on for N steps to measure the effect of each observer."
        ),
    ] = 50,
    seed: Seed = 0,
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Find evaluations and saves that change the run.

    Each is named with the memory that it changes and the effect on training. The exit code is 1 if one
    changes the run.

    \b
    Example:
      bygones audit observers -- examples/scripts/torchs_ema.py
    """
    begin_alone()
    from bygones.audit.observers import find_observers
    from bygones.cli import terminal

    watched = make_script(script, seed_env)
    found = find_observers(watched, Path.cwd(), seed, until, horizon)
    if as_json:
        print(json.dumps([observer.to_dict() for observer in found], indent=2))
    else:
        none = f"{watched}: nothing evaluates or saves in its first {until} steps."
        for line in [str(observer) for observer in found] or [none]:
            terminal.out.print(line)
    if any(observer.alters for observer in found):
        raise typer.Exit(1)


def transparency(
    script: ScriptTarget,
    at: Annotated[
        int, typer.Option(metavar="STEP", min=1, help="Fork after this optimizer step.")
    ] = 20,
    seed: Seed = 0,
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Prove that a script runs the same with and without bygones.

    The script is run bare, and watched and forked; both must print and write the same bytes.

    \b
    Example:
      bygones audit transparency -- examples/scripts/torchs_ema.py
    """
    begin_alone()
    from bygones.audit.transparency import check_transparency
    from bygones.core.errors import ForkError

    proof = check_transparency(make_script(script, seed_env), Path.cwd(), seed, at)
    if not proof.passed:
        raise ForkError(str(proof))
    print(json.dumps(asdict(proof), indent=2) if as_json else proof)


def divergence(
    script: ScriptTarget,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="The other run: script and arguments, like 'other.py --lr 0.1'."
        ),
    ] = None,
    add: Annotated[
        str | None,
        typer.Option(
            metavar="ARGUMENTS",
            help="The other run is the same script with these arguments added, like '--eps 1e-6'.",
        ),
    ] = None,
    until: Annotated[
        int, typer.Option(metavar="STEP", min=1, help="Compare the runs up to this step.")
    ] = 200,
    seed: Seed = 0,
    seed_env: SeedEnv = None,
    as_json: Json = False,
) -> None:
    """Find the first torch operation at which two runs differ.

    Both are run up to the first step that differs, and that step again with every operation recorded: of
    the loader, the forward and backward pass, and the optimizer. The exit code is 1 if they differ.

    \b
    Example:
      bygones audit divergence --add "--seed 1" -- examples/scripts/torchs_ema.py
    """
    begin_alone()
    from bygones.attach.isolation.script import Script
    from bygones.audit.operations.divergence import find_divergence
    from bygones.cli import terminal
    from bygones.cli.values import split_words
    from bygones.core.errors import DesignError

    if (against is None) == (add is None):
        raise DesignError("give the other run either by --against or by --add.")
    one = make_script(script, seed_env)
    other = replace(one, arguments=(*one.arguments, *split_words(add or "", "--add")))
    if against is not None:
        path, *arguments = split_words(against, "--against") or [""]
        other = Script(path, tuple(arguments), seed_env)
    found = find_divergence(
        one, other, Path.cwd(), (seed, seed), until, lambda run: terminal.console.print(f"{run} …")
    )
    print(json.dumps(found.to_dict(), indent=2) if as_json else found)
    raise typer.Exit(0 if found.equal else 1)
