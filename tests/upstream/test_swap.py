import contextlib
import io
import types

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from state.tx.models import utils
from transformers import LlamaConfig

from state_rag.upstream.swap import any_head_count, replaced, unclipped_copies, whole_h5ad_files
from tests import tiny_model as tiny

ODD = {**tiny.LLAMA, "hidden_size": 128, "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 58}


def test_an_attribute_is_replaced_for_the_block_and_put_back():
    target = types.SimpleNamespace(name="old")
    with replaced(target, "name", "new"):
        assert target.name == "new"
    assert target.name == "old"


def test_an_entry_of_a_mapping_is_replaced_for_the_block_and_put_back():
    target = {"name": "old", "other": 1}
    with replaced(target, "name", "new"):
        assert target == {"name": "new", "other": 1}
    assert target == {"name": "old", "other": 1}


@pytest.mark.parametrize("target", [types.SimpleNamespace(name="old"), {"name": "old"}])
def test_an_error_in_the_block_puts_the_old_value_back(target):
    with pytest.raises(ZeroDivisionError), replaced(target, "name", "new"):
        _ = 1 / 0
    assert (target["name"] if isinstance(target, dict) else target.name) == "old"


def test_replacements_nest():
    target = types.SimpleNamespace(name=0)
    with replaced(target, "name", 1):
        with replaced(target, "name", 2):
            assert target.name == 2
        assert target.name == 1
    assert target.name == 0


@pytest.mark.parametrize(("target", "error"), [(types.SimpleNamespace(), AttributeError), ({}, KeyError)])
def test_what_is_not_there_cannot_be_replaced(target, error):
    with pytest.raises(error), replaced(target, "name", "new"):
        pytest.fail("entered")
    assert not (target if isinstance(target, dict) else vars(target))


def test_h5ad_files_are_written_whole_and_readable(tmp_path):
    data = anndata.AnnData(np.ones((3, 2), dtype=np.float32))
    original = anndata.AnnData.write_h5ad
    with whole_h5ad_files():
        data.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    assert anndata.AnnData.write_h5ad is original
    assert np.array_equal(anndata.read_h5ad(tmp_path / "cells.h5ad").X, data.X)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_an_h5ad_file_whose_writing_fails_leaves_the_old_one(tmp_path):
    whole = anndata.AnnData(np.ones((3, 2), dtype=np.float32))
    whole.write_h5ad(tmp_path / "cells.h5ad")
    bad = anndata.AnnData(np.zeros((3, 2), dtype=np.float32), uns={"what": object()})
    with whole_h5ad_files(), pytest.raises(Exception, match="object"):
        bad.write_h5ad(tmp_path / "cells.h5ad")
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").X.all()
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def build_backbone(**changes):
    with contextlib.redirect_stdout(io.StringIO()):
        return utils.get_transformer_backbone("llama", {**ODD, **changes})[0]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_published_twelve_heads_on_a_width_of_128_build_and_run(bidirectional):
    with any_head_count():
        backbone = build_backbone(bidirectional_attention=bidirectional)
    attention = backbone.layers[0].self_attn
    assert attention.q_proj.weight.shape == (12 * 58, 128)
    assert attention.k_proj.weight.shape == (12 * 58, 128)
    assert backbone.config.num_attention_heads == backbone.config.num_key_value_heads == 12
    cells = torch.randn(2, 5, 128)
    output = backbone(inputs_embeds=cells).last_hidden_state
    assert output.shape == cells.shape
    assert output.isfinite().all()


def test_fewer_key_heads_than_heads_are_kept():
    with any_head_count():
        backbone = build_backbone(num_key_value_heads=4)
    assert backbone.layers[0].self_attn.k_proj.weight.shape == (4 * 58, 128)
    assert backbone(inputs_embeds=torch.randn(1, 3, 128)).last_hidden_state.isfinite().all()


def test_heads_that_are_given_afterwards_compute_what_heads_given_at_once_do():
    """Eight heads divide 128, so that transformers itself can build the same backbone."""
    kwargs = {**ODD, "num_attention_heads": 8, "num_key_value_heads": 8}
    kwargs.pop("bidirectional_attention")
    torch.manual_seed(0)
    plain = utils.LlamaModel(LlamaConfig(**kwargs)).eval()
    config = LlamaConfig(**{**kwargs, "num_attention_heads": 1, "num_key_value_heads": 1})
    config.num_attention_heads = config.num_key_value_heads = 8
    late = utils.LlamaModel(config).eval()
    late.load_state_dict(plain.state_dict())
    cells = torch.randn(2, 5, 128)
    assert torch.equal(late(inputs_embeds=cells).last_hidden_state, plain(inputs_embeds=cells).last_hidden_state)


def test_the_configuration_class_is_put_back_after_success_and_failure():
    assert utils.LlamaConfig is LlamaConfig
    with any_head_count():
        assert utils.LlamaConfig is not LlamaConfig
    assert utils.LlamaConfig is LlamaConfig
    with pytest.raises(ZeroDivisionError), any_head_count():
        _ = 1 / 0
    assert utils.LlamaConfig is LlamaConfig


@pytest.mark.parametrize("kwargs", [{}, tiny.LLAMA, {**tiny.LLAMA, "num_key_value_heads": 1}])
def test_ordinary_configurations_are_those_of_transformers(kwargs):
    given = {key: value for key, value in kwargs.items() if key != "bidirectional_attention"}
    with any_head_count():
        config = utils.LlamaConfig(**given)
    assert type(config) is LlamaConfig
    assert config.to_dict() == LlamaConfig(**given).to_dict()


def test_cells_made_from_values_keep_an_unclipped_copy_inside_the_block_only(tmp_path):
    values, obs = np.array([[-1.0, 20.0], [0.5, 1.0]], np.float32), pd.DataFrame(index=["a", "b"])
    with unclipped_copies("X_state"):
        cells = anndata.AnnData(X=values.copy(), obs=obs)
        np.clip(cells.X, 0, 14, out=cells.X)
        cells[np.array([True, False])].copy().write_h5ad(tmp_path / "cells.h5ad")
        assert not anndata.AnnData(X=values, obs=obs, var=pd.DataFrame(index=["x", "y"])).obsm
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert read.X.tolist() == [[0, 14]]
    assert read.obsm["X_state"].tolist() == [[-1, 20]]
    assert not anndata.AnnData(X=values, obs=obs).obsm
