"""Data in the shape that upstream reads: simulated screens, split files, preparation of h5ad files."""
