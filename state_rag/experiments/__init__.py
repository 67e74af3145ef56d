"""Sets of runs: sweeps over methods, held-out lines and settings, and the tables that come of them."""
