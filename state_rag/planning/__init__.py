"""Which experiment to do next: design on a fitted run."""
