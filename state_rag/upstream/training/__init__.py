"""`state tx train`: the run checked and recorded (`train`, `wandb_run`), and one training in several processes.

`processes` starts them, `one_trainer` is what Lightning's trainer has to do then, `sharded_sets` gives each its sets.
"""
