"""Analysis: from outcomes to effects with intervals and references. No torch."""
