"""What the paper's code fixed, and tests of several rooms hold us to."""

FLAGS = {
    "rag",
    "differentiable_rag",
    "retrieve_than_predict",
    "use_genept",
    "topk_rag",
    "rag_weight",
    "gumbel_sparsity_loss",
    "gumbel_sparsity_weight",
    "check_gradients",
    "gradient_check_interval",
}
"""Names of the published flags under `training.`."""
