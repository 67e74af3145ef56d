"""Report: what people read. A page a comparison, tables for terminals and papers, and the commands that print them.

`build` fills the page of `page` with the parts of `conditions`, `evidence` and `retrieval`; `tables` renders
comparisons on the grids of `grid`. Pictures are in `state_rag.plot`.
"""
