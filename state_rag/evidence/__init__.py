"""Predicting from responses: what a perturbation does, told from what similar ones did, here and in other contexts.

Pure torch and NumPy: no files, no command line, no AnnData, no STATE. Read it in this order: `responses` (what was
measured), `bank` (the same by number), `similarity` (kernels of perturbations), `kriging` (one solve, all genes),
`episodes` (questions with known answers), `gene_features` and `fusion` (a correction gene by gene), `training`,
`questions` (from names to scenes), `estimator` (`Evidence`: fit, predict, explain), `explanation`. `combinations` are
predicted from their members, `adding` takes in what is known later. The room `trust` tells how right a prediction will
be and which genes change, the room `choices` what to measure next and what brings a wanted state.
"""

from state_rag.public import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
