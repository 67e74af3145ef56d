"""From an h5ad file that upstream cannot read to one that it can: `prepare` goes through it, every change is said.

`names` finds columns and control, `labels` makes these as upstream needs them, `values` the matrix, `hvgs` the one of
variable genes; `alike` takes genes and scale of other files.
"""
