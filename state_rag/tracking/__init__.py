"""Watching a run: callbacks and checks for training."""
