"""Live variables: those of a loop that a round may read before it assigns them, and so carry memory.

Liveness analysis, backward over the bytecode: a name is live before an instruction if the instruction reads
it, or if it is live after it and the instruction does not assign it. At the head of a loop the live names are
what one round takes over from the one before; a loss or a batch that each round assigns first is not. Inner
`for` loops are taken to run at least once, an exception may be raised anywhere in its `try`, and a context
manager is taken to pass it on.
(A. V. Aho et al., Compilers, 2nd ed., section 9.2.5.)

Instructions differ between versions of Python. One that has a variable and is unknown here counts as a read.
"""

from __future__ import annotations

import dis
import inspect
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from types import CodeType, FrameType
from typing import Any

_ENDS = ("RETURN", "RAISE", "RERAISE")
_ALWAYS = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP")
_VERBS = ("LOAD", "STORE", "DELETE")
_SCOPES = {"FAST", "NAME", "GLOBAL", "GLOBALS", "DEREF", "CLASSDEREF", "CLOSURE"}
_OF_VARIABLES = {*dis.haslocal, *dis.hasfree}


def carried_names(frames: Sequence[FrameType]) -> frozenset[str]:
    """Return the variables that cross from one round to the next of the innermost running loops.

    Of a function that runs no loop now, its variables live in one call: none of them. Globals that other
    functions name count.
    """
    carried: set[str] = set()
    for frame in frames:
        carried |= live_at_loop_head(frame.f_code, frame.f_lasti)
        for value in [*frame.f_globals.values()]:
            if getattr(value, "__module__", None) == frame.f_globals.get("__name__"):
                carried |= set(_names_in(value))
    return frozenset(carried)


def live_at_loop_head(code: CodeType, at: int) -> frozenset[str]:
    """Return the live names where a round begins of the innermost loop around the instruction at `at`.

    >>> def train(steps):
    ...     hidden, total = None, 0
    ...     for step in range(steps):
    ...         loss = hidden or step
    ...         hidden = loss
    ...     return loss
    >>> sorted(live_at_loop_head(train.__code__, _offset_of(train.__code__, "LOAD", "hidden")))
    ['hidden']
    """
    instructions, place = _read_code(code)
    handlers = _handlers(code, instructions, place)
    head = innermost_head(instructions, place, handlers, at)
    if head is None:
        return frozenset()
    first = head + 1 if instructions[head].opname == "FOR_ITER" else head  # one more round begins
    live = _live_before(instructions, place, handlers)[first]
    return frozenset(live | {*code.co_cellvars} - {"__class__"})


def innermost_head(
    instructions: Sequence[dis.Instruction],
    place: dict[int, int],
    handlers: dict[int, list[int]],
    at: int,
) -> int | None:
    """Return the index of the head of the innermost loop around the instruction at `at`; None without one.

    Natural loops: a jump back to a head that every way to the jump passes. Python may place the handler of an
    exception after all other code, with a jump back that begins no round. (Aho et al., section 9.6.6.)
    """
    before: list[set[int]] = [set() for _ in instructions]
    for index in range(len(instructions)):
        for after in (*_following(instructions, place, index), *handlers.get(index, ())):
            before[after].add(index)
    bodies: dict[int, set[int]] = {}
    for end, one in enumerate(instructions):
        if _jumps(one) and one.argval in place and "NO_INTERRUPT" not in one.opname:  # not an await
            head = place[one.argval]
            body = _reaching(end, head, before) if head <= end else {0}
            if head == 0 or 0 not in body:
                bodies[head] = bodies.get(head, set()) | body | {head}
    mine = bisect_right([one.offset for one in instructions], at) - 1  # `at` may lie in its cache
    around = [head for head, body in bodies.items() if mine in body]
    return min(around, key=lambda head: len(bodies[head]), default=None)


def _reaching(end: int, head: int, before: Sequence[set[int]]) -> set[int]:
    """Return what `end` can be reached from without passing `head`."""
    found, pending = {end}, [end] if end != head else []
    while pending:
        for index in before[pending.pop()] - found - {head}:
            found.add(index)
            pending.append(index)
    return found


def _read_code(code: CodeType) -> tuple[list[dis.Instruction], dict[int, int]]:
    """Return the instructions, and by offset the index of each; of one that is left out, that of the next.

    Left out are prefixes, and in a module fast variables: only its comprehensions have them, and they hide
    variables of the same names.
    """
    instructions: list[dis.Instruction] = []
    place: dict[int, int] = {}
    has_fast = code.co_flags & inspect.CO_OPTIMIZED
    for one in dis.get_instructions(code):
        place[one.offset] = len(instructions)
        is_hidden = not has_fast and "FAST" in one.opname.split("_")
        if one.opname != "EXTENDED_ARG" and not is_hidden:
            instructions.append(one)
    return instructions, place


def _handlers(
    code: CodeType, instructions: Sequence[dis.Instruction], place: dict[int, int]
) -> dict[int, list[int]]:
    """Return by index of an instruction the indices where exceptions that it raises are handled."""
    found: dict[int, list[int]] = {}
    offsets = [one.offset for one in instructions]
    entries: list[Any] = getattr(dis.Bytecode(code), "exception_entries", [])  # not in its stubs
    for entry in entries:
        target = place[entry.target]
        if any(one.opname == "WITH_EXCEPT_START" for one in instructions[target : target + 2]):
            continue
        for index in range(bisect_left(offsets, entry.start), bisect_left(offsets, entry.end)):
            found.setdefault(index, []).append(target)
    return found


def _live_before(
    instructions: Sequence[dis.Instruction],
    place: dict[int, int],
    handlers: dict[int, list[int]],
) -> list[set[str]]:
    """Return the live names before each instruction: the least solution, by iteration."""
    live: list[set[str]] = [set() for _ in instructions]
    changed = True
    while changed:
        changed = False
        for index in range(len(instructions) - 1, -1, -1):
            one = instructions[index]
            after: set[str] = set()
            for following in _following(instructions, place, index):
                after |= live[_entered(instructions, index, following)]
            before = live_before(one, after).union(*(live[i] for i in handlers.get(index, ())))
            if before != live[index]:
                live[index] = before
                changed = True
    return live


def _following(
    instructions: Sequence[dis.Instruction], place: dict[int, int], index: int
) -> Iterator[int]:
    one = instructions[index]
    if one.opname.startswith(_ENDS) and one.opname != "RETURN_GENERATOR":
        return
    if _jumps(one) and one.argval in place:
        yield place[one.argval]
        if one.opname in _ALWAYS:
            return
    if index + 1 < len(instructions):
        yield index + 1


def _entered(instructions: Sequence[dis.Instruction], index: int, following: int) -> int:
    """Return where a `for` loop that begins next goes on: in its first round, and not after its end."""
    begins = following == index + 1 and instructions[following].opname == "FOR_ITER"
    return following + 1 if begins and following + 1 < len(instructions) else following


def _jumps(one: dis.Instruction) -> bool:
    return one.opcode in dis.hasjrel or one.opcode in dis.hasjabs


def live_before(one: dis.Instruction, after: Collection[str]) -> set[str]:
    """Return the names that are live before an instruction, from those that are live after it."""
    live = {*after}
    for verb, name in reversed(uses_of(one)):
        if verb == "LOAD":
            live.add(name)
        else:
            live.discard(name)
    return live


def uses_of(one: dis.Instruction) -> list[tuple[str, str]]:
    """Return what an instruction does with variables, in order: LOAD, STORE or DELETE, and the name.

    LOAD_FAST_AND_CLEAR saves a variable that a comprehension hides, and so reads it.
    """
    parts = one.opname.split("_")
    names = one.argval if isinstance(one.argval, tuple) else (one.argval,)
    if parts[0] in _VERBS and _SCOPES.intersection(parts):
        verbs = [part for part in parts if part in _VERBS]
    elif one.opcode in _OF_VARIABLES:
        verbs = []
    else:
        return []
    return [*zip_longest(verbs[: len(names)], names, fillvalue="LOAD")]


def _names_in(value: object) -> Iterator[str]:
    """Yield the globals that a function, or a method of a class, names."""
    members: Collection[object] = vars(value).values() if isinstance(value, type) else (value,)
    for member in members:
        code = getattr(getattr(member, "__func__", member), "__code__", None)
        pending = [code] if isinstance(code, CodeType) else []
        while pending:
            inner = pending.pop()
            for one in dis.get_instructions(inner):
                if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    yield one.argval
            pending += [c for c in inner.co_consts if isinstance(c, CodeType)]


def _offset_of(code: CodeType, verb: str, name: str) -> int:
    """Return where an instruction first reads a name; for examples."""
    return next(o.offset for o in dis.get_instructions(code) if (verb, name) in uses_of(o))
