"""Script digest: what identifies a script that is studied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bygones.core.digest import digest
from bygones.core.values import Digest

SCRIPT_PARTS = ("files", "versions", "arguments", "seed_env", "clock")


def script_digest(script: Mapping[str, Any], machine: Digest) -> Digest:
    """Digest of a script: its own files, the packages it imports, its arguments, and how it is run.

    `script` holds at least SCRIPT_PARTS; other keys do not count. `machine`: digest of the code of bygones
    that runs scripts.
    """
    return digest([*(script[part] for part in SCRIPT_PARTS), machine])
