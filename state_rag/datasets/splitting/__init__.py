"""Split files: which conditions train, validate and are tested; written (`splits`, `perturbation_splits`), and checked.

`split_toml` is the format, `perturbation_draws` which perturbations are held out, `split_check` what a split holds.
"""
