"""How right a prediction will be (`expected`), and which genes it changes (`gene_calls`).

Both are learned by asking about measured conditions without themselves (`scenes`), from what can be told beforehand
(`signs`), by small models (`model`, `gene_caller`).
"""
