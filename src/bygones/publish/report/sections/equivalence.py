"""Equivalence: two one-sided tests (TOST) against the declared margins."""

from __future__ import annotations

from typing import Any

from bygones.publish.report.sections.base import PageData


def equivalence(page: PageData) -> dict[str, Any]:
    """Return the verdict on each declared margin; an empty list where none was declared."""
    return {"absences": page.evidence.absences}
