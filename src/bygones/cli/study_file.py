"""Study file: the study of a script as a TOML file, which stands for the command line that it spells.

    bygones run study.toml --seeds 0-3   =   bygones run <what the file says> --seeds 0-3 -- <its script>

So every command that takes a script takes such a file, and options that are typed win over those in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bygones.core.catalogue import unknown_name
from bygones.core.errors import DesignError

# Keys, each named like its option; `script`, `arms` and `margins` are spelled otherwise.
OPTIONS = (
    *("fork-at", "horizons", "seeds", "seed-env", "probe", "metric", "observe", "name"),
    *("replay", "sufficiency", "workers", "store", "optimizer"),
)
KEYS = ("script", "arms", "margins", *OPTIONS)


def find_study_file(arguments: Sequence[str], options: Mapping[str, bool]) -> int | None:
    """Return where in the arguments the name of a study file stands; None if there is none.

    `options`: the options of the command, by how they are typed, and whether each takes a value.

    >>> find_study_file(["--json", "study.toml"], {"--json": False})
    1
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for place, word in enumerate(arguments[:end]):
        is_value = place > 0 and options.get(arguments[place - 1], False)
        if word.endswith(".toml") and not is_value and not word.startswith("-"):
            return place
    return None


def expand_study_file(arguments: Sequence[str], place: int, options: Collection[str]) -> list[str]:
    """Replace the study file by the options that it spells, and its script.

    `options`: those that the command has; others in the file are for other commands.
    """
    file = arguments[place]
    if "--" in arguments:
        raise DesignError(
            f"{file} names the script already. Leave out `--` and what stands after it, or the file."
        )
    spelled, script = spell_study(file)
    here = [word for option in spelled if option[0] in options for word in option]
    typed = [*arguments[:place], *arguments[place + 1 :]]
    return [*here, *typed, "--", *script]


def spell_study(file: str) -> tuple[list[list[str]], list[str]]:
    """Return the options that a study file spells, each with its value, and the words of its script."""
    from bygones.cli.values import split_words

    said = _read(file)
    for key in said:
        if key not in KEYS:
            raise unknown_name(f"key of a study in {file}", key, KEYS)
    if "script" not in said:
        raise DesignError(
            f'{file} has no script: expected a line like script = "train.py --seed {{seed}}".'
        )
    script = said["script"]
    words = (
        split_words(script, f"{file}: script") if isinstance(script, str) else _texts(file, script)
    )
    options = [_spell(file, key, said[key]) for key in OPTIONS if key in said]
    options += [["--arm", f"{name}={body}"] for name, body in _table(file, said, "arms")]
    options += [["--margin", f"{metric}={size}"] for metric, size in _table(file, said, "margins")]
    return [option for option in options if option], words


def _read(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DesignError(
            f"there is no file '{file}'. `bygones init -- train.py` writes one for a script."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DesignError(f"{file} is no TOML file: {error}.") from None


def _spell(file: str, key: str, value: Any) -> list[str]:
    """Return an option and its value; nothing for a switch that is off."""
    match value:
        case bool():
            return [f"--{key}"] if value else []
        case list():
            return [f"--{key}", ",".join(_texts(file, value))]
        case str() | int() | float():
            return [f"--{key}", str(value)]
        case _:
            raise DesignError(
                f"{file}: {key} is {value!r}. Expected what `--{key}` takes: a text, a number or a list."
            )


def _texts(file: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str | int) for one in value):
        raise DesignError(f"{file}: expected a text or a list of words and numbers, got {value!r}.")
    return [str(one) for one in value]


def _table(file: str, said: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return the rows of a table; of several treatments of one arm, joined by `+`."""
    table = said.get(key, {})
    if not isinstance(table, dict):
        raise DesignError(f"{file}: expected a table [{key}] with a line for each, got {table!r}.")
    return [
        (name, "+".join(_texts(file, value)) if isinstance(value, list) else value)
        for name, value in table.items()
    ]


def write_study(
    script: Sequence[str],
    fork_at: int,
    arms: Sequence[str],
    sources: Sequence[Mapping[str, Any]],
    seed_env: str | None = None,
) -> str:
    """Return the text of a study file.

    `arms`: as they are typed, NAME=INTERVENTION:SOURCE. `sources`: the inventory, for comments.
    """
    lines = [
        "# The study of a training script:  bygones run study.toml",
        "# Each key is an option of `bygones run`; what is typed there wins. {seed} stands for the seed.",
        "",
        f"script = [{', '.join(map(_quote, script))}]",
        f"fork-at = {fork_at}  # fork after this optimizer step",
        "horizons = [0, 1, 3, 10, 30, 100]  # steps after the fork at which the function is observed",
        'seeds = "0-7"',
        *([f"seed-env = {_quote(seed_env)}"] if seed_env else []),
        '# metric = "js"  # the distance that the report leads with: bygones list metrics',
        '# probe = "probe.py:outputs"  # a function of the model, in place of its own evaluation batches',
        "",
        "[arms]  # NAME = INTERVENTION:SOURCE[@WINDOW]; bygones list interventions",
    ]
    lines += [
        f"{_quote(name)} = {_quote(body)}" for name, _, body in (arm.partition("=") for arm in arms)
    ]
    lines += [
        "",
        f"# Memory that {script[0]} carries across step {fork_at}, and how long it lasts by itself:",
    ]
    width = max((len(source["name"]) for source in sources), default=0)
    lines += [f"#   {source['name']:<{width}}  {source['lifetime']}" for source in sources]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """Return a text as TOML writes it.

    >>> _quote('say "a"')
    '"say \\\\"a\\\\""'
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
