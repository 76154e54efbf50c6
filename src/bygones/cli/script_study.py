"""Study commands for a training script: sources, plan, run, ledger.

Each restarts its process in isolation first (`begin_alone`): with one thread, and without the working
directory on the import path. So torch is imported only after that.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bygones.attach.isolation.environment import begin_alone
from bygones.cli.resources import NUM_CORES, local_store, print_effects
from bygones.core.errors import DesignError

if TYPE_CHECKING:
    from bygones.attach.isolation.script import Script
    from bygones.scripts.plan import ScriptPlan, ScriptRequest


def make_script(words: list[str], seed_env: str | None, optimizer: int = 0) -> Script:
    """Make the script from the words after `--`: its path, then its arguments. Refuses a job."""
    script = make_job(words, seed_env, optimizer)
    if script.processes:
        raise DesignError(
            f"this command follows a script of one process, and {words[0]} starts several. Jobs are taken by "
            f"`bygones sources`, `bygones ledger write` and `bygones audit resume`."
        )
    return script


def make_job(words: list[str], seed_env: str | None, optimizer: int = 0) -> Script:
    """Make the script from the words after `--`; with a launcher before its path, a job of processes."""
    from bygones.attach.isolation.script import Script
    from bygones.attach.job.launch import read_launch

    if words[0] == "accelerate":
        raise DesignError(
            "`accelerate launch` is not followed. Start the same script with `torchrun --nproc-per-node N`, "
            "which sets the same variables for it."
        )
    launch = read_launch(words)
    if launch is None:
        _refuse_commands(words)
        return Script(words[0], tuple(words[1:]), seed_env, optimizer)
    return Script(launch.script, launch.arguments, seed_env, optimizer, processes=launch.processes)


def _refuse_commands(words: list[str]) -> None:
    """Raise `DesignError` for a module (`-m`) or an installed command, with the file that starts it."""
    if words[0] == "-m" and len(words) > 1:
        code = f'runpy.run_module("{words[1]}", run_name="__main__", alter_sys=True)'
        what, line, rest = f"-m {words[1]}", f"import runpy; {code}", words[2:]
    elif not Path(words[0]).exists() and shutil.which(words[0]):
        name = Path(words[0]).name
        what, line, rest = name, "from PACKAGE import main; main()", words[1:]
    else:
        return
    raise DesignError(
        f"'{what}' is no file, and a script is followed by its file. Write launch.py beside your package, "
        f"with the line: {line} Then: {' '.join(['-- launch.py', *rest])}"
    )


def print_sources(
    words: list[str],
    at: int,
    seed: int,
    seed_env: str | None,
    patience: float,
    *,
    as_json: bool,
) -> None:
    """Run the script, or the ranks of a job, up to a step, and list the memory that is carried there.

    `patience`: seconds after which ranks that neither step nor work count as hanging.
    """
    begin_alone()
    from bygones.attach.isolation.script import check_script
    from bygones.cli import terminal
    from bygones.scripts.pilot import run_pilot

    script = make_job(words, seed_env)
    check_script(script)
    if script.processes:
        from bygones.attach.job.run import Patience
        from bygones.scripts.job_sources import find_job_sources

        job = find_job_sources(script, Path.cwd(), seed, at, Patience(idle=patience))
        terminal.print_job_sources(str(script), at, job.rows, job.findings, as_json=as_json)
        return
    found = run_pilot(script, Path.cwd(), seed, at)
    terminal.print_sources(str(found.script), at, found.sources, as_json=as_json)
    if found.why_not_fork and not as_json:
        reason = found.why_not_fork.rstrip(".")
        terminal.out.print(f"Note: its process cannot be forked, since {reason}.")


def make_request(
    words: list[str],
    seed_env: str | None,
    fork_at: int,
    horizons: str,
    seeds: str | None,
    arms: list[str] | None,
    probe: str | None,
    name: str,
    margins: list[str] | None,
    replay: bool,
    sufficiency: bool,
    observe: str = "",
    metric: str = "",
) -> ScriptRequest:
    """Make the request for a script's study from the options of `plan` and `run`."""
    begin_alone()
    from bygones.cli.values import parse_margins, parse_seeds, parse_steps
    from bygones.scripts.plan import ScriptRequest

    return ScriptRequest(
        make_script(words, seed_env),
        fork_at,
        parse_steps(horizons),
        parse_seeds(seeds or "0-7"),
        tuple(arms or ()),
        probe,
        name,
        parse_margins(margins or []),
        replay=replay,
        sufficiency=sufficiency,
        observe=observe,
        metric=metric,
    )


def init(words: list[str], out: Path, fork_at: int, seed: int, seed_env: str | None) -> None:
    """Run the script up to the fork, and write its study as a file. Refuses to write over one."""
    begin_alone()
    from bygones.attach.isolation.script import check_script
    from bygones.cli import terminal
    from bygones.cli.study_file import write_study
    from bygones.core.files import write_whole
    from bygones.scripts.arm_syntax import spell_default_arms
    from bygones.scripts.pilot import run_pilot

    if out.exists():
        raise DesignError(f"{out} exists already. Give another name by --out, or delete it.")
    script = make_script(words, seed_env)
    check_script(script)
    found = run_pilot(
        script,
        Path.cwd(),
        seed,
        fork_at,
        lambda live: spell_default_arms(live.sources, fork_at, 100),
    )
    write_whole(out, write_study(words, fork_at, found.answer, found.sources, seed_env))
    terminal.out.print(f"Wrote {out}. Look at its arms, then: bygones run {out}")


def print_plan(request: ScriptRequest, store: str, workers: int | None, *, as_json: bool) -> None:
    """Print what the script's study will run, and what that costs."""
    from bygones.cli import terminal

    planned, num_workers = _plan(request, store), workers or NUM_CORES
    if as_json:
        print(json.dumps(terminal.plan_dict(planned.plan, num_workers), indent=2))
        return
    terminal.print_plan(planned.plan, terminal.script_lines(planned, num_workers))


def run(
    request: ScriptRequest, store: str, workers: int | None, *, as_json: bool, verbose: bool
) -> None:
    """Run the arms that the store lacks, and print the effects."""
    from bygones.audit.sufficiency import study_sufficiency
    from bygones.cli import terminal
    from bygones.scripts.measure import measure_script

    planned, num_workers = _plan(request, store), workers or NUM_CORES
    for line in terminal.script_lines(planned, num_workers):
        terminal.console.print(line)
    checks = [study_sufficiency] if request.sufficiency else []
    with terminal.progress_of_seeds(planned.plan) as on_seed:
        measure_script(planned, num_workers, on_seed, checks)
    print_effects(store, planned.plan.study.name, as_json=as_json, verbose=verbose)


def record(
    words: list[str], out: Path, every: int, seed: int, seed_env: str | None, optimizer: int
) -> None:
    """Run the script, or the ranks of a job, to their own end, and write the ledger."""
    begin_alone()
    from bygones.cli import terminal
    from bygones.scripts.job_record import record_job
    from bygones.scripts.record import record_script

    script = make_job(words, seed_env, optimizer)
    write = record_job if script.processes else record_script
    terminal.console.print(str(write(script, Path.cwd(), seed, every, out)))


def _plan(request: ScriptRequest, store: str) -> ScriptPlan:
    from bygones.scripts.plan import plan_script

    return plan_script(request, Path.cwd(), local_store(store))
