"""Evaluation: from predicted and real cells to tables that can be compared and trusted.

Start at `evaluate.evaluate_pair` (two h5ad files in, one row per condition out); `run.evaluate_run` does the same
for a run folder with the naive baselines beside it, `compare` puts several runs into one table with significance
marks. `metrics` holds one family of definitions a file, `gge` makes them available to GGE.
"""
