"""The command line: argument parsing and nothing else.

Modules that need torch are imported inside the commands, so that help and reports come at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from bygones.cli import record_commands, script_commands, study_commands
from bygones.core.errors import BygonesError

app = typer.Typer(
    help="How much does a trained network depend on its training history?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


for command in (
    study_commands.demo,
    study_commands.run,
    study_commands.plan,
    study_commands.report,
    study_commands.compare,
    study_commands.check,
    record_commands.bundle,
    record_commands.verify,
    record_commands.ledger,
    record_commands.diff,
    record_commands.contract,
    record_commands.checklist,
    script_commands.sources,
    script_commands.twin,
    script_commands.observers,
    script_commands.sufficiency,
):
    app.command()(command)
app.command("script")(script_commands.run_script)
app.command("check-resume")(script_commands.check_resume)
app.command("list")(record_commands.list_catalogue)


def main() -> None:
    """Runs the command; every error becomes one sentence and an exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        status = app(arguments, standalone_mode=False)
        if status == 130:  # some versions of typer make this out of a KeyboardInterrupt
            raise KeyboardInterrupt
        if status:
            sys.exit(status)
    except BygonesError as error:
        print(getattr(error, "place", ""), end="", file=sys.stderr) if debug else None
        _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        _fail(
            "stopped. What is finished is stored; run the same command again to go on.", 130, debug
        )
    except BrokenPipeError:
        os._exit(0)  # the reader of our output has seen enough
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:
            sentence = f"{usage()}{_before_the_script(arguments)} See `bygones --help`."
            _fail(sentence, getattr(error, "exit_code", 2), debug)
        _fail(
            f"an error that bygones did not expect: {type(error).__name__}: {error}. What is finished is "
            f"stored. Run again with --debug to see where, and please report it.",
            70,
            debug,
        )


def _before_the_script(arguments: list[str]) -> str:
    """What to do if the options of a script were taken for ours."""
    script = next((argument for argument in arguments if argument.endswith(".py")), None)
    if script is None or "--" in arguments or arguments[0] in ("run", "plan", "check"):
        return ""
    return f" If {script} is the script, put `--` before it: … -- {script} …"


def _fail(sentence: str, exit_code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"bygones: {sentence}", file=sys.stderr)
    sys.exit(exit_code)
