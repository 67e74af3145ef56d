"""Inference: a trained run as a Python object.

`predictor.load` opens a run and `Predictor.predict` answers through STATE's own `tx infer`; `evidence_answers` is what
a run with evidence answers besides, `planning_answers` what it answers about what to do next.
"""
