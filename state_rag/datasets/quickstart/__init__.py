"""`state-rag quickstart`: from an h5ad file that nobody has looked at to the commands that train and predict on it.

`first_look` reads, `guesses` says what it takes for what, `plan` decides, and `script` prints.
"""
