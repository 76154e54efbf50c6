"""Ready-made runs: benchmark tasks (regimes), and runs with closed-form effects (worlds)."""
