"""Catalogue: an ordered registry of members by name, with suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from bygones.core.errors import UnknownName

Member = TypeVar("Member")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """Build the error for an unknown name: the name, the closest known one, and the whole list.

    >>> print(unknown_name("memory source", "momments", ["weights", "moments"]))
    no memory source called 'momments'; did you mean 'moments'? Known: weights, moments.
    """
    names = list(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return UnknownName(f"no {kind} called '{name}'{hint} Known: {', '.join(names)}.")


class Catalogue(Mapping[str, Member]):
    """A read-only mapping from names to members, in the order in which they should be listed.

    Looking up an unknown name raises `UnknownName` with a suggestion.

    >>> Catalogue("metric", {"tv": abs})["tv"](-1)
    1
    """

    def __init__(self, kind: str, members: Mapping[str, Member]) -> None:
        self.kind = kind
        self._members = dict(members)

    def __getitem__(self, name: str) -> Member:
        if name not in self._members:
            raise unknown_name(self.kind, name, self._members)
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        # The one inherited from Mapping calls __getitem__ and expects a KeyError, not an UnknownName.
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def summary(self) -> dict[str, str]:
        """Return the first line of each member's docstring, by name."""
        return {
            name: (getattr(member, "__doc__", None) or "").strip().split("\n")[0]
            for name, member in self._members.items()
        }
