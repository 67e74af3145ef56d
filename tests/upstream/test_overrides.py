import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from state_rag.upstream.overrides import encoded, overrides_of


@pytest.mark.parametrize(
    "value",
    [None, True, False, 3, -1, 1e-05, 0.1, "", "plain", "it's", 'a "quote"', "a\\b", "ends in \\", "a\\'b", "null", "1",
     "x=y | z", "${not", "[a]", [], [1, [2, "a,b"]], {}, {"a": {"b": [None, "c"]}}],
    ids=repr,
)  # fmt: skip
def test_a_value_survives_hydras_grammar(value):
    (override,) = OverridesParser.create().parse_overrides([f"++key={encoded(value)}"])
    found = override.value()
    assert found == value
    assert type(found) is type(value) or isinstance(found, str)


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
