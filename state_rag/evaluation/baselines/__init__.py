"""Rows beside the model: naive predictors (`naive`, with `ridge`), and the evidence engine (`evidence_row`)."""
