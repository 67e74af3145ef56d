import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from state_rag.upstream.overrides import overrides_of, quoted

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = (
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), SCALARS)
)


@given(VALUES)
@example("${x}")
@example("${not")
@example("a\\b")
@example("ends in \\")
@example({"a": {"b": [None, "c"]}})
@example("\\'")
def test_hydra_reads_a_quoted_value_back(value):
    (override,) = OverridesParser.create().parse_overrides([f"key={quoted(value)}"])
    config = OmegaConf.create({"key": override.value()})

    assert OmegaConf.to_container(config, resolve=True) == {"key": value}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["rag=ptrag", "model=rag", "data=replogle", "training.rag_watch=[WARS,AARS]", "+training.log_every_n_steps=2"],
        ["rag=ptrag_paper", "model=rag_paper", "data=replogle", "name=a b", "training.lr=1e-5"],
        ["rag=vanilla", "model=state_sm", "+wandb.group=x", "wandb.tags=[a,'b c']"],
        ["model=perturb_mean", "training=cpa"],
    ],
    ids=lambda given: " ".join(given) or "defaults",
)
def test_a_configuration_is_composed_again_from_its_overrides(overrides, compose):
    config = compose(*overrides)
    restored = overrides_of(config)
    assert compose(*restored) == config
    assert len(restored) < 130


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
def test_from_the_right_groups_few_overrides_are_left(compose, groups, given):
    chosen = [f"{group}={option}" for group, option in groups.items()]
    wanted = compose(*chosen, *given)

    found = overrides_of(wanted, groups, leaving_out=["rag", "name"])

    again = compose(*found)
    for values in (wanted, again):
        for key in ("rag", "name"):
            values.pop(key, None)
    assert again == wanted
    assert len(found) <= len(chosen) + 4 * len(given)
