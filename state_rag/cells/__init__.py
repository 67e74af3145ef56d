"""Cells in, cells out: `question` makes the cells that a model is asked about, `answer` those that it predicted."""
