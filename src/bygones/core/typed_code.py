"""Typed code: functions and classes of a notebook, which lie in no file that a worker could import.

They are sent by value (cloudpickle). Their digest is sent too, since their source stays where it was typed.
Only processes that this one has started are sent anything; nothing is ever read from a file this way.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import cloudpickle

from bygones.core.code_digest import code_digest
from bygones.core.importing import load_object
from bygones.core.values import Digest

_MAIN = "__main__:"
_SENT: dict[str, Digest] = {}  # the digests of functions that were sent here, by their addresses

Parcel = tuple[str, bytes, Digest]  # an address, the function with what else is sent, its digest


def is_typed(address: str) -> bool:
    """Return whether an address leads to something that was typed, and is in no file.

    >>> is_typed("__main__:recipe"), is_typed("/home/me/study.py:recipe")
    (True, False)
    """
    return address.startswith(_MAIN)


def pack_typed(address: str, values: Any) -> Parcel:
    """Pack the function at an address, and values that may hold classes that were typed too."""
    function = load_object(address)
    return address, cloudpickle.dumps((function, values)), digest_of_code(address)


def unpack_typed(parcel: Parcel) -> Any:
    """Put the function where its address leads, and return the values."""
    address, content, code = parcel
    function, values = pickle.loads(content)
    setattr(sys.modules["__main__"], address.removeprefix(_MAIN), function)
    _SENT[address] = code
    return values


def digest_of_code(address: str) -> Digest:
    """Return the digest of a function's code, as it was where it was typed."""
    return _SENT.get(address) or code_digest(load_object(address))
