"""Command types: help pages in sections, and commands that take a recipe or a script.

A training script and its arguments are written after `--`; anything else is a recipe or a study. An option
that makes sense for one kind only is declared with `rich_help_panel=FOR_RECIPES` or `FOR_SCRIPTS`: the help
page lists it under that heading, and `takes_script` refuses it for the other kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from typer.core import TyperCommand, TyperGroup

from bygones.cli.study_file import expand_study_file, find_study_file
from bygones.core.errors import DesignError

FOR_RECIPES = "For a recipe"
FOR_SCRIPTS = "For a script"
_PLACES = ("DIR", "FILE", "PATH")  # metavars of options that name something on the disk
_WORDS_AFTER_DASHES = "bygones.words_after_dashes"


class Command(TyperCommand):
    """A command with a help page of plain text: usage, description, arguments, options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        refuse_empty_places(self.params, args)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [p for p in self.params if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(argument.metavar) for argument in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            heading = self.heading_of(parameter)
            if heading is not None:
                sections.setdefault(heading, []).extend(_help_rows(parameter, ctx))
        _write_sections(formatter, sections)

    def heading_of(self, parameter: Any) -> str | None:
        """Return the heading that a parameter is listed under; None hides it."""
        return "Arguments" if parameter.param_type_name == "argument" else "Options"


class TargetCommand(Command):
    """A command that takes a recipe or, after `--`, a training script."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {
            name: not getattr(part, "is_flag", False)
            for part in self.params
            if part.param_type_name == "option"
            for name in part.opts
        }
        place = find_study_file(args, options)
        if place is not None:
            args = expand_study_file(args, place, options)
        ctx.meta[_WORDS_AFTER_DASHES] = len(args) - args.index("--") - 1 if "--" in args else None
        return super().parse_args(ctx, args)

    def heading_of(self, parameter: Any) -> str | None:
        return panel_of(parameter) or super().heading_of(parameter)


class ScriptCommand(TargetCommand):
    """The same command for scripts alone: its help leaves out what is for recipes."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", "-- SCRIPT [ARGUMENTS]"]

    def heading_of(self, parameter: Any) -> str | None:
        hidden = panel_of(parameter) == FOR_RECIPES or parameter.param_type_name == "argument"
        return None if hidden else "Options"


class Group(TyperGroup):
    """A group whose help lists its commands first, under the headings they were registered with."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["COMMAND [OPTIONS] [ARGUMENTS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        longest = max(map(len, self.commands))
        for name in self.list_commands(ctx):
            command = self.commands[name]
            if command.hidden:
                continue
            row = (name.ljust(longest), command.get_short_help_str(formatter.width - longest - 6))
            sections.setdefault(panel_of(command) or "Commands", []).append(row)
        sections["Options"] = [row for p in self.get_params(ctx) for row in _help_rows(p, ctx)]
        _write_sections(formatter, sections)


def refuse_empty_places(parameters: Sequence[Any], arguments: Sequence[str]) -> None:
    """Raise `DesignError` for an option that names a file or folder and was given no name.

    It would mean the working directory, and what is there would be written over.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = arguments[:end]
    for parameter in parameters:
        if parameter.param_type_name == "argument" or parameter.metavar not in _PLACES:
            continue
        for option in parameter.opts:
            empty = any(pair == (option, "") for pair in pairwise(ours)) or f"{option}=" in ours
            if empty:
                raise DesignError(
                    f"{option} is empty: expected the name of a file or folder. Write {option} . for the "
                    f"working directory."
                )


def _help_rows(parameter: Any, ctx: Any) -> list[tuple[str, str]]:
    """Return the rows of a parameter in a help page.

    An argument that is one of several things has a line of help, and so a row, for each.
    """
    if parameter.param_type_name == "argument":
        forms, lines = parameter.metavar.split(" | "), parameter.help.split("\n")
        return list(zip(forms, lines, strict=True))
    record = parameter.get_help_record(ctx)
    return [] if record is None else [record]


def _write_sections(formatter: Any, sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    for heading, rows in sections.items():
        with formatter.section(heading):
            formatter.write_dl(rows)


def takes_script(ctx: Any, target: Sequence[str]) -> bool:
    """Return whether `target` is a script with its arguments, and not the name of one recipe.

    Raises `DesignError` if both are given, if there are several recipes, or if an option of the other kind
    was given.
    """
    num_after = ctx.meta[_WORDS_AFTER_DASHES]
    is_script = num_after is not None or isinstance(ctx.command, ScriptCommand)
    if num_after is not None and len(target) > num_after:
        raise DesignError(
            f"'{target[0]}' stands before `--` and '{target[-num_after]}' after it. Give either a recipe, or "
            f"`--` and then a script with its arguments."
        )
    if not is_script and len(target) > 1:
        raise DesignError(
            f"expected one recipe or study, got {len(target)}: {' '.join(target)}. Put `--` before a script "
            f"with arguments: {ctx.command_path} -- {' '.join(target)}"
        )
    _refuse_options_of_the_other_kind(ctx, target[0], is_script=is_script)
    return is_script


def _refuse_options_of_the_other_kind(ctx: Any, name: str, *, is_script: bool) -> None:
    refused = FOR_RECIPES if is_script else FOR_SCRIPTS
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name)
        if panel_of(parameter) == refused and getattr(source, "name", "") == "COMMANDLINE":
            option = parameter.opts[0]
            raise DesignError(
                f"{option} is for a recipe, and {name} is a script. Leave it out."
                if is_script
                else f"{option} is for a script, and '{name}' is not one. Leave it out, or put `--` before a "
                f"script: {ctx.command_path} -- train.py"
            )


def panel_of(part: Any) -> str | None:
    """Return the heading that a command or a parameter was declared with."""
    return getattr(part, "rich_help_panel", None)
