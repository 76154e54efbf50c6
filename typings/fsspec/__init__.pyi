"""Types of what bygones calls in fsspec, which brings none."""
