"""Multiplicity: the family of comparisons with adjusted p-values."""

from __future__ import annotations

from typing import Any

from bygones.publish.report.sections.base import PageData


def multiplicity(page: PageData) -> dict[str, Any]:
    """Return the family's comparisons, and whether the family was declared."""
    return {"adjusted": page.evidence.adjusted, "is_declared": page.evidence.is_declared}
