"""Evaluation: a run's predictions against the truth, beside naive baselines.

Start at `evaluate.evaluate_pair` (two h5ad files or AnnData in, one row per condition out);
`run_evaluation.evaluate_run` does it for a run folder, `save` and `results` are its files, `compare` puts several runs
into one table with significance marks, and `gather` is what the commands share. Metrics are in `state_rag.metrics`,
tables in `state_rag.report`.
"""
