"""The evidence engine as a run: fitted on what a split trains on, predicting cells as any other run does.

`bank` turns mean effects into measured responses, `fitting` makes the run folder, `folder` reads and writes it, `kept`
shares a fit among evaluations, `fit_facts` says what it found, and `fit_tracking` tells W&B; `held_out` finds the
cells that a split tests and controls for them, `predict` writes predicted and real cells, `ask` predicts for cells in
memory. The room `explaining` asks where a prediction comes from, and shows the answer as tables, lines and files.
"""
