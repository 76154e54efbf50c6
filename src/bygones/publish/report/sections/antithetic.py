"""Antithetic pairs: odd and even part of the response to a change and its opposite."""

from __future__ import annotations

from typing import Any

from bygones.publish.report.sections.base import PageData


def antithetic(page: PageData) -> dict[str, Any] | None:
    """Return a sentence for each pair and score."""
    found = page.evidence.antithetic
    return {"antithetic": [str(one) for one in found]} if found else None
