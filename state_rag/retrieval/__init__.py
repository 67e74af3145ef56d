"""The science of PT-RAG in pure torch: no files, no command line, no Hydra, no Lightning, no STATE.

Read it in the order in which one cell set travels: `knowledge` (names and embeddings), `neighbours` (stage 1,
top-K by cosine), `retriever` (what all ways of retrieving have in common), then one file for each: `selector`
(stage 2, which candidate for which cell), `attention` and `hidden` (without a selector); `modes` lists them.
`trace` is what was retrieved, as arrays.
"""
