"""Aliases: the former names of commands, rewritten before the command line is parsed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

ALIASES: Mapping[str, tuple[str, str]] = {
    "twin": ("audit", "transparency"),
    "check-resume": ("audit", "resume"),
    "observers": ("audit", "observers"),
    "sufficiency": ("audit", "inventory"),
    "diff": ("ledger", "diff"),
    "contract": ("ledger", "contract"),
    "verify": ("bundle", "verify"),
    "atlas": ("dynamics", "atlas"),
    "checklist": ("store", "checklist"),
    "sensitivity": ("dynamics", "sensitivity"),
    # Groups today, commands before: `bundle STORE` means `bundle write STORE`.
    "script": ("script", "run"),
    "ledger": ("ledger", "write"),
    "bundle": ("bundle", "write"),
}


def replace_aliases(arguments: Sequence[str], groups: Mapping[str, Collection[str]]) -> list[str]:
    """Return the arguments with a former command's name replaced; nothing, or a group alone, asks for help.

    `groups`: the commands of each group.

    >>> replace_aliases(["diff", "a.jsonl", "b.jsonl"], {})
    ['ledger', 'diff', 'a.jsonl', 'b.jsonl']
    >>> replace_aliases(["bundle", "bygones-store"], {"bundle": ["write", "verify"]})
    ['bundle', 'write', 'bygones-store']
    >>> replace_aliases(["bundle", "verify", "study.zip"], {"bundle": ["write", "verify"]})
    ['bundle', 'verify', 'study.zip']
    """
    first, *rest = arguments or ["--help"]
    if first in groups:
        if not rest:
            return [first, "--help"]
        if rest[0] in groups[first] or rest[0] == "--help":
            return [first, *rest]
    return [*ALIASES.get(first, (first,)), *rest]
