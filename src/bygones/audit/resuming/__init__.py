"""Parts of the resume audit beside its runs and verdicts: what to write, and a check inside one process."""
