"""Publishing: reports, reporting checklists and bundles. No torch."""
