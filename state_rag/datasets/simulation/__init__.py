"""Simulated screens, whose truth is known."""
