import pytest

from state_rag.experiments.overrides import NOT_COMPARED, overrides_of


@pytest.mark.parametrize(
    ("groups", "given"),
    [
        ({"model": "rag", "data": "replogle", "rag": "none"}, []),
        ({"model": "rag", "data": "replogle", "rag": "ptrag"}, ["training.topk_rag=7", "training.lr=1e-3"]),
        ({"model": "rag_paper", "rag": "hidden"}, ["training.rag_weight=0.5", "+training.log_every_n_steps=2"]),
        ({"rag": "none"}, ["training.rag=true", "training.gumbel_sparsity_loss=false"]),
        (
            {"model": "rag"},
            [
                "model.kwargs.cell_set_len=16",
                "model.kwargs.transformer_backbone_kwargs.max_position_embeddings=512",
            ],
        ),
        ({"model": "state_sm"}, ["training.rag=true", "data.kwargs.additional_obs=[a,'b c']", "wandb.project=x y"]),
        ({"training": "cpa", "model": "cpa"}, ["~wandb.tags", r"wandb.entity='it\'s \${x}'"]),
    ],
)
def test_the_overrides_compose_to_the_same_configuration(compose, groups, given):
    chosen = [f"{group}={option}" for group, option in groups.items()]
    wanted = compose(*chosen, *given)

    found = overrides_of(wanted, groups)

    again = compose(*found)
    for values in (wanted, again):
        for key in NOT_COMPARED:
            values.pop(key, None)
    assert again == wanted
    assert len(found) <= len(chosen) + 4 * len(given)
