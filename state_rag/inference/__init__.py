"""Inference: a trained run as a Python object.

`predictor.load` opens a run and `Predictor.predict` answers through STATE's own `tx infer`; `query_cells` makes the
cells that it is asked about.
"""
