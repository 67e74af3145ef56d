"""The data contract: the genes of a matrix's columns, in order, and the scale of its values.

Recorded when a run is trained (`identity`), and checked at every later entrance. `matrices` reads rows of matrices
larger than memory, `feature_names` tells what columns are called, `scale` what values look like, `space` puts these
together, `align` finds the columns of one matrix in another.
"""
