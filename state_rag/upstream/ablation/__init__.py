"""Predictions without single neighbours: of one cell set (`switching_off`), of a run's test conditions (`ablate`)."""
