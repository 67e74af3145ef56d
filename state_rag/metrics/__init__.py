"""Metrics: arrays in, numbers out. No file, AnnData or model is known here.

`registry.METRICS` lists every metric as data, one family of definitions a file beside it: `profile` (expression),
`effects` (what a perturbation changes), `distances` and `sinkhorn` (clouds of cells). `degs` finds differential genes,
`pca` fits the space of distances, `significance` tests differences, `glossary` explains, `gge` adapts to and from GGE.
"""
