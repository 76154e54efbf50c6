"""The command line's entry: its groups of commands, and one sentence and an exit code for every error.

Modules that need torch are imported inside the commands, so that help and reports need not wait for it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from bygones.cli import (
    atlas_commands,
    audit_commands,
    doctor,
    dynamics_commands,
    process,
    record_commands,
    store_commands,
    study_commands,
)
from bygones.cli.aliases import replace_aliases
from bygones.cli.command_types import Command, Group, ScriptCommand, TargetCommand
from bygones.core.errors import BygonesError, StoreError, WorkerError

STUDIES = "Study a recipe or, after `--`, a training script"
RECORDS = "Audit a script, keep records"
_STORING = {"run", "demo", "atlas", "dynamics"}  # commands that go on where they stopped
_ORDER: list[str] = [
    *(
        "demo",
        "sources",
        "init",
        "plan",
        "run",
        "check",
        "report",
        "compare",
        "dynamics",
    ),
    *("audit", "store", "ledger", "bundle", "list", "doctor"),
    "script",  # not shown: `run -- SCRIPT` says the same
]


class _Root(Group):
    """The commands in the order of the help page; typer itself would put groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options; those of a shell's completion, which is set up once, are not listed."""
        found: list[Any] = super().get_params(ctx)
        for parameter in found:
            if parameter.name in ("install_completion", "show_completion"):
                parameter.hidden = True
        return found


def _make_group(summary: str, cls: type[Group] = Group) -> typer.Typer:
    return typer.Typer(
        cls=cls,
        help=summary,
        add_completion=cls is _Root,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _make_group(
    "Measure how much training history matters. `COMMAND --help` has an example.",
    _Root,
)
script = _make_group("Study an unmodified script: run, plan, sources, ledger.")
audit = _make_group("Audit a script: its checkpoints, inventory and evaluations.")
store = _make_group("List, measure, delete, export studies; fill in a checklist.")
ledger = _make_group("Write a run's ledger, compare two, read contracts.")
bundle = _make_group("Write a study as a self-contained archive, or verify one.")
dynamics = _make_group("What kind of memory: the atlas, maps of regimes, sensitivity.")
GROUPS = {
    "dynamics": dynamics,
    "script": script,
    "audit": audit,
    "store": store,
    "ledger": ledger,
    "bundle": bundle,
}

for command in (
    study_commands.demo,
    study_commands.report,
    study_commands.compare,
):
    app.command(cls=Command, rich_help_panel=STUDIES)(command)
for command in (
    study_commands.sources,
    study_commands.init,
    study_commands.plan,
    study_commands.run,
    study_commands.check,
):
    app.command(cls=TargetCommand, rich_help_panel=STUDIES)(command)
app.command("list", cls=Command, rich_help_panel=RECORDS)(record_commands.list_catalogue)
app.command(cls=Command, rich_help_panel=RECORDS)(doctor.doctor)
for name, group in GROUPS.items():
    panel = STUDIES if group is dynamics else RECORDS
    app.add_typer(group, name=name, rich_help_panel=panel, hidden=group is script)

audit.command("resume", cls=Command)(audit_commands.resume)
audit.command("inventory", cls=Command)(audit_commands.inventory)
audit.command("observers", cls=Command)(audit_commands.observers)
audit.command("transparency", cls=Command)(audit_commands.transparency)
audit.command("divergence", cls=Command)(audit_commands.divergence)
store.command("ls", cls=Command)(store_commands.list_studies)
store.command("size", cls=Command)(store_commands.measure_size)
store.command("rm", cls=Command)(store_commands.remove)
store.command("export", cls=Command)(store_commands.export)
store.command("checklist", cls=Command)(record_commands.checklist)
ledger.command("write", cls=TargetCommand)(record_commands.write_ledger)
ledger.command("diff", cls=Command)(record_commands.diff)
ledger.command("contract", cls=Command)(record_commands.contract)
dynamics.command("atlas", cls=Command)(atlas_commands.atlas)
dynamics.command("map", cls=Command)(dynamics_commands.map_regimes)
dynamics.command("attribute", cls=Command)(dynamics_commands.attribute)
dynamics.command("sensitivity", cls=Command)(dynamics_commands.sensitivity)
bundle.command("write", cls=Command)(record_commands.write_bundle)
bundle.command("verify", cls=Command)(record_commands.verify_bundle)


def _add_script_command(name: str, function: Callable[..., Any], summary: str, call: str) -> None:
    """Add to `bygones script` a command that takes recipes too, with help about scripts alone."""
    example = (
        f"bygones script {name}{call} -- \\\n      examples/scripts/torchs_ema.py --seed {{seed}}"
    )
    text = f"{summary}\n\n\b\nExample:\n  {example}"
    script.command(name, cls=ScriptCommand, help=text)(function)


_add_script_command(
    "run",
    study_commands.run,
    "Fork a running script into arms, and print their effects.\n\nThe process is forked after a step, once "
    "for each arm; in each arm one source of memory is rewritten. The same command continues a run that was "
    "stopped.",
    " --fork-at 60",
)
_add_script_command(
    "plan",
    study_commands.plan,
    "Show what the study of a script will run and what that costs.\n\nThe script is run once up to the fork. "
    "Nothing is stored.",
    " --fork-at 60",
)
_add_script_command(
    "sources",
    study_commands.sources,
    "List the memory that a script carries from step to step.\n\nThe script is run up to a step.",
    "",
)
_add_script_command(
    "ledger",
    record_commands.write_ledger,
    "Run a script to its end and write its ledger.\n\nA ledger has a line for each recorded boundary: the "
    "examples shown so far, the loss, and a digest of every source. The lines form a hash chain.",
    " --out b.jsonl",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"bygones {version('bygones')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere before `--`.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; turn every error into one sentence and an exit code."""
    arguments, debug = _take_debug(sys.argv[1:])
    subcommands = {
        name: [str(command.name) for command in group.registered_commands]
        for name, group in GROUPS.items()
    }
    arguments = replace_aliases(arguments, subcommands)
    process.write_utf8()
    try:
        with process.ends_in_a_sentence(arguments):
            status = app(arguments, prog_name="bygones", standalone_mode=False)
            sys.stdout.flush()
        if status == 130:  # some versions of typer make this out of a KeyboardInterrupt
            raise KeyboardInterrupt
        if status:
            sys.exit(status)
    except BygonesError as error:
        if debug:
            print(getattr(error, "place", ""), end="", file=sys.stderr)
        _fail(str(error), error.exit_code, debug)
    except process.Terminated:
        _fail(f"ended by SIGTERM.{_go_on(arguments)}", 143, debug)
    except (KeyboardInterrupt, typer.Abort):
        _fail(f"stopped.{_go_on(arguments)}", 130, debug)
    except BrokenPipeError:
        process.leave(0)  # the reader of standard output has closed it
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # the parser makes exit code 1 of it
            process.leave(0)
        raise
    except OSError as error:
        _fail(process.describe(error), StoreError.exit_code, debug)
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        _fail(
            f"there is not enough memory for this{why}.{_go_on(arguments)}",
            WorkerError.exit_code,
            debug,
        )
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the parser
            _fail(_usage_sentence(error, arguments), getattr(error, "exit_code", 2), debug)
        _fail(
            f"an error that bygones did not expect: {type(error).__name__}: {error}. What is finished is "
            f"stored. Run again with --debug to see where, and please report it.",
            70,
            debug,
        )
    except BaseException as error:  # bygones has no other of its own, and catches none of a recipe
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        _fail(f"the code that was run raised {said}, which ends Python.", 3, debug)


def _go_on(arguments: list[str]) -> str:
    if not _STORING.intersection(arguments[:1]) and arguments[:2] != ["script", "run"]:
        return ""
    return " What is finished is stored; run the same command again to go on."


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out of the arguments, except after `--`, where a script's own arguments are."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = arguments[:end]
    kept = [argument for argument in ours if argument != "--debug"]
    return [*kept, *arguments[end:]], "--debug" in ours


def _usage_sentence(error: Any, arguments: list[str]) -> str:
    """Say what is wrong with the arguments, and which help page to read.

    Options of a script that lacks its `--` were parsed as options of bygones, so `--` is suggested.
    """
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "bygones")
    file = next((argument for argument in arguments if argument.endswith(".py")), None)
    hint = ""
    if file is not None and "--" not in arguments and path != "bygones check":
        hint = f" If {file} is a script, put `--` before it: {path} -- {file} …"
    return f"{error.format_message().rstrip('.')}.{hint} See `{path} --help`."


def _fail(sentence: str, exit_code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    with suppress(OSError):  # standard error itself may be full or closed
        print(f"bygones: {sentence}", file=sys.stderr, flush=True)
    process.drop_output()
    sys.exit(exit_code)
