"""What to do next: which conditions to measure (`design`, `hits`), and which ones bring a wanted state (`search`).

`design_replay` tells what a design would have been worth in a context that was measured; `decorrelation` is how a
search looks at effects, `chances` whether what it found is more than luck.
"""
