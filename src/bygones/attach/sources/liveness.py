"""Live variables: those of a loop that a round may read before it assigns them, and so carry memory.

Liveness analysis, backward over the bytecode: a name is live before an instruction if the instruction reads
it, or if it is live after it and the instruction does not assign it. At the head of a loop the live names are
what one round takes over from the one before; a loss or a batch that each round assigns first is not. Inner
`for` loops are taken to run at least once.
(A. V. Aho et al., Compilers, 2nd ed., section 9.2.5.)
"""

from __future__ import annotations

import dis
from collections.abc import Collection, Iterator, Sequence
from types import CodeType, FrameType

_ENDS = ("RETURN", "RAISE", "RERAISE")
_ALWAYS = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP")
_SCOPES = ("FAST", "NAME", "GLOBAL", "DEREF", "CLASSDEREF")


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
    >>> sorted(live_at_loop_head(train.__code__, _offset_of(train.__code__, "LOAD_FAST", "hidden")))
    ['hidden']
    """
    instructions = [*dis.get_instructions(code)]
    place = {one.offset: index for index, one in enumerate(instructions)}
    loops = [
        (one.argval, one.offset)
        for one in instructions
        if isinstance(one.argval, int) and _jumps(one) and one.argval <= one.offset
    ]
    around = [(head, end) for head, end in loops if head <= at <= end]
    if not around:
        return frozenset()
    head = place[max(around)[0]]
    first = head + 1 if instructions[head].opname == "FOR_ITER" else head  # one more round begins
    live = _live_before(instructions, place)[first]
    if instructions[head].opname == "FOR_ITER" and first < len(instructions):
        live -= set(_assigned(instructions[first]))
    return frozenset(live | {*code.co_cellvars} - {"__class__"})


def _live_before(instructions: Sequence[dis.Instruction], place: dict[int, int]) -> list[set[str]]:
    """Return the live names before each instruction: the least solution, by iteration."""
    live: list[set[str]] = [set() for _ in instructions]
    changed = True
    while changed:
        changed = False
        for index in range(len(instructions) - 1, -1, -1):
            one = instructions[index]
            after: set[str] = set()
            for following in _following(instructions, place, index):
                after |= live[following]
            before = {*_read(one)} | (after - {*_assigned(one)})
            if before != live[index]:
                live[index] = before
                changed = True
    return live


def _following(
    instructions: Sequence[dis.Instruction], place: dict[int, int], index: int
) -> Iterator[int]:
    one = instructions[index]
    if one.opname.startswith(_ENDS):
        return
    if _jumps(one) and one.argval in place:
        yield place[one.argval]
        if one.opname in _ALWAYS:
            return
    if index + 1 < len(instructions):
        enters = instructions[index + 1].opname == "FOR_ITER" and index + 2 < len(instructions)
        yield index + 2 if enters else index + 1


def _jumps(one: dis.Instruction) -> bool:
    return one.opcode in dis.hasjrel or one.opcode in dis.hasjabs


def _read(one: dis.Instruction) -> Iterator[str]:
    yield from _names(one, "LOAD")


def _assigned(one: dis.Instruction) -> Iterator[str]:
    yield from _names(one, "STORE")
    yield from _names(one, "DELETE")


def _names(one: dis.Instruction, verb: str) -> Iterator[str]:
    """Yield the variables that an instruction loads or stores; some do both, LOAD_FAST_AND_CLEAR say."""
    parts = one.opname.split("_")
    if len(parts) < 2 or parts[1] not in _SCOPES:
        return
    verbs = [part for part in parts if part in ("LOAD", "STORE", "DELETE")]
    names = one.argval if isinstance(one.argval, tuple) else (one.argval,) * len(verbs)
    yield from (name for what, name in zip(verbs, names, strict=False) if what == verb)


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


def _offset_of(code: CodeType, opname: str, name: str) -> int:
    """Return where an instruction first reads a name; for examples."""
    found = (o.offset for o in dis.get_instructions(code) if name in _names(o, opname[:4]))
    return next(found)
