"""Training loop: the loops of a script that enclose its optimizer steps, and when a new round of one begins.

A script that takes its batches from no DataLoader may draw them anywhere in a step. The head of its loop is
the one place that lies between two steps in any case.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from bygones.attach.discovery import own_frames

_Code = tuple[str, str, int]  # file, name and first line of a function


@dataclass(frozen=True)
class Loop:
    """A `for` or `while` loop: its function, and the lines of its head, `start <= line < stop`."""

    code: _Code
    start: int
    stop: int


def enclosing_loops(script: Path) -> tuple[Loop, ...]:
    """Return the loops in the script's own functions that are running now, outermost first."""
    return tuple(loop for frame in own_frames(script) for loop in _loops_of(frame))


def _loops_of(frame: FrameType) -> Iterator[Loop]:
    try:
        tree = ast.parse(Path(frame.f_code.co_filename).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    line = frame.f_lineno
    for node in _statements(tree, frame.f_code):
        if isinstance(node, ast.For | ast.While) and node.lineno <= line <= (node.end_lineno or 0):
            stop = max(node.body[0].lineno, node.lineno + 1)
            if line >= node.body[0].lineno:
                yield Loop(_code_of(frame.f_code), node.lineno, stop)


def _statements(tree: ast.Module, code: CodeType) -> Iterator[ast.AST]:
    """Yield the statements of a function or of the module, outer ones first; not of inner functions."""
    pending: list[ast.AST] = [tree]
    if code.co_name != "<module>":
        pending = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == code.co_name
            and code.co_firstlineno in {node.lineno, *(d.lineno for d in node.decorator_list)}
        ]
    while pending:
        node = pending.pop(0)
        for inner in ast.iter_child_nodes(node):
            if not isinstance(
                inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr
            ):
                yield inner
                pending.append(inner)


def _code_of(code: CodeType) -> _Code:
    return code.co_filename, code.co_name, code.co_firstlineno


class LoopWatch:
    """Call `on_head(level)` whenever the head of a loop is executed; level 0 is the outermost loop.

    Python's tracing is switched on only from `start` to `stop`. It is left alone if something else uses it.
    """

    def __init__(self, loops: tuple[Loop, ...], on_head: Callable[[int], None]) -> None:
        self._on_head = on_head
        self._heads: dict[_Code, list[tuple[int, Loop]]] = {}
        for level, loop in enumerate(loops):
            self._heads.setdefault(loop.code, []).append((level, loop))
        self._last: dict[_Code, int] = {}  # the line before, by function
        self._active = False

    def start(self) -> None:
        """Begin to watch, in functions that are running and in those that are called from now on."""
        if self._active or not self._heads or sys.gettrace() is not None:
            return
        self._active = True
        self._last = {}
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if _code_of(frame.f_code) in self._heads:
                frame.f_trace = self._see_line
                self._last[_code_of(frame.f_code)] = frame.f_lineno
            frame = frame.f_back
        sys.settrace(self._see_call)

    def stop(self) -> None:
        """Stop watching."""
        if self._active:
            self._active = False
            sys.settrace(None)

    def _see_call(self, frame: FrameType, event: str, _: Any) -> Any:
        known = self._active and _code_of(frame.f_code) in self._heads
        return self._see_line if known else None

    def _see_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if not self._active:
            frame.f_trace = None
            return None
        if event == "line":
            code, line = _code_of(frame.f_code), frame.f_lineno
            before, self._last[code] = self._last.get(code, 0), line
            for level, loop in self._heads[code]:
                within = loop.start <= before < loop.stop and before != line
                if loop.start <= line < loop.stop and not within and self._active:
                    self._on_head(level)
        return self._see_line if self._active else None
