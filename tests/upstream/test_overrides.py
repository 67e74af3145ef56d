import pytest
import yaml
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
    restored = overrides_of(yaml.safe_dump(config))
    assert compose(*restored) == config
    assert len(restored) < 120
