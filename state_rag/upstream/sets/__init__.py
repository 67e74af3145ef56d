"""How sets of cells are predicted: which go together, what is read ahead, how cells are written as they come."""
