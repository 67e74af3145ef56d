"""Metrics as data: `registry.METRICS` lists them, one family of definitions a file beside it."""
