"""The science of PT-RAG in pure torch: no files, no command line, no Hydra, no Lightning, no STATE.

Read it in the order in which one cell set travels: `knowledge` (names and embeddings), `neighbours` (stage 1,
top-K by cosine), `selector` (stage 2, which candidate for which cell), `attention` (the two modes without a
selector), `trace` (what was retrieved, as arrays).
"""
