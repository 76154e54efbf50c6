"""Other models: what an average or a teacher that was observed too shows at the last horizon."""

from __future__ import annotations

from typing import Any

from bygones.publish.report.sections.base import PageData


def models(page: PageData) -> dict[str, Any] | None:
    """Return every arm's effect on each model beside the one that leads; None where there is none."""
    return {"models": page.evidence.models} if page.evidence.models else None
