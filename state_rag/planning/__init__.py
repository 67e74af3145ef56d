"""Which perturbation gives a wanted effect, and which experiment to do next: search and design on a fitted run."""
