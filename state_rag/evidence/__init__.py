"""Predicting from responses: what a perturbation does, told from what similar ones did, here and in other contexts.

Pure torch and NumPy: no files, no command line, no AnnData, no STATE. Read it in this order: `responses` (what was
measured), `bank` (the same by number), `similarity` (kernels of perturbations), `kriging` (one solve, all genes),
`episodes` (questions with known answers), `gene_features` and `fusion` (a correction gene by gene), `training`,
`questions` (from names to scenes), `prediction` and `explanation` (what is said of them), `estimator` (`Evidence`: fit,
predict, explain). `tables` are embeddings as the engine is given them, `adding` takes in what is known later. The room
`combinations` predicts `A+B` from its members, the room `trust` tells how right a prediction will be and which genes
change, the room `choices` what to measure next and what brings a wanted state.
"""

from state_rag.public import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
