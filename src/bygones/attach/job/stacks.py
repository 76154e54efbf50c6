"""Stacks: where in its code a rank is, from what `faulthandler` wrote of it."""

from __future__ import annotations

import re
from pathlib import Path

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$', re.MULTILINE)
_LIBRARY = ("site-packages", "/lib/python", "/bygones/", "<frozen ")
_MOST = 3  # frames of the script


def describe_stack(file: Path) -> str:
    """Say where a process is: the call that it is in, and the script's own frames that lead to it.

    `file`: a stack as `faulthandler` writes it, innermost frame first.
    """
    try:
        frames = [match.groupdict() for match in _FRAME.finditer(file.read_text())]
    except OSError:
        frames = []
    if not frames:
        return "a call that shows no stack"
    own = [f for f in frames if not any(part in f["file"] for part in _LIBRARY)]
    places = [f"{Path(f['file']).name}, line {f['line']}, in {f['name']}" for f in own[:_MOST]]
    inner = frames[0]
    if own and inner is own[0]:
        return " < ".join(places)
    called = inner["name"]
    for frame in frames:  # the outermost of the library's frames below the script: what it called
        if own and frame is own[0]:
            break
        called = frame["name"]
    return " < ".join([f"{called} ({Path(inner['file']).name}, line {inner['line']})", *places])
