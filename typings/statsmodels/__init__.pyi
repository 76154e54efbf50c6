"""Types of what bygones calls in statsmodels, which brings none."""
