"""The zoo: ready-made runs, real ones (regimes) and ones with a closed-form answer (worlds)."""
