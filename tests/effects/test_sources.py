import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import state_rag as sr
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects.conditions import Columns
from state_rag.effects.training_effects import training_effects
from state_rag.errors import StateRagError


@pytest.fixture(scope="module")
def cells():
    return sr.datasets.screen(n_perturbations=5, n_genes=30, cells_per_condition=7, controls_per_line=11)


def plain(cells, line, name):
    """Mean, deviation and number of the cells of a condition, by pandas."""
    chosen = (cells.obs["cell_line"] == line) & (cells.obs["gene"] == name)
    table = pd.DataFrame(cells.X[chosen.to_numpy()].toarray().astype(float))
    return table.mean().to_numpy(), table.std().to_numpy(), len(table)


def test_effects_means_and_deviations_are_those_of_a_plain_loop(cells):
    found = sr.effects.from_anndata(cells)
    assert found.n_obs == 5 * 4
    numbers = json.loads(found.uns["state_rag"]["control_n_cells"])
    for row, (line, name) in enumerate(zip(found.obs["context"], found.obs["perturbation"], strict=True)):
        mean, std, n = plain(cells, line, name)
        control, control_std, n_control = plain(cells, line, "non-targeting")
        np.testing.assert_allclose(found.X[row], mean - control, atol=1e-6)
        np.testing.assert_allclose(found.layers["mean"][row], mean, atol=1e-6)
        np.testing.assert_allclose(found.layers["std"][row], std, atol=1e-5)
        np.testing.assert_allclose(found.varm["control_mean"][line], control, atol=1e-6)
        np.testing.assert_allclose(found.varm["control_std"][line], control_std, atol=1e-5)
        assert found.obs["n_cells"].iloc[row] == n
        assert numbers[line] == n_control


def test_deviations_keep_their_precision_far_from_zero_and_over_chunks(cells, monkeypatch):
    monkeypatch.setattr("state_rag.effects.cell_sums.BLOCK_VALUES", 30 * 13)
    shifted = ad.AnnData(cells.X.toarray() + np.float32(1000), obs=cells.obs, var=cells.var)
    found = sr.effects.from_anndata(shifted)
    line, name = found.obs["context"].iloc[3], found.obs["perturbation"].iloc[3]
    chosen = ((cells.obs["cell_line"] == line) & (cells.obs["gene"] == name)).to_numpy()
    np.testing.assert_allclose(
        found.layers["std"][3], shifted.X[chosen].astype(float).std(axis=0, ddof=1), rtol=1e-4, atol=1e-6
    )


def test_memory_a_backed_file_and_many_files_give_the_same(cells, tmp_path):
    whole = sr.effects.from_anndata(cells)
    cells.write_h5ad(tmp_path / "whole.h5ad")
    backed = ad.read_h5ad(tmp_path / "whole.h5ad", backed="r")
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(3):
        cells[number::3].copy().write_h5ad(parts / f"{number}.h5ad")
    for other in (
        sr.effects.from_anndata(backed),
        sr.effects.read(tmp_path / "whole.h5ad", progress=False),
        sr.effects.read(parts, progress=False),
        sr.effects.read(sorted(parts.iterdir()), progress=False),
    ):
        assert other.obs.equals(whole.obs)
        assert other.var_names.equals(whole.var_names)
        np.testing.assert_allclose(other.X, whole.X, atol=1e-9)
        np.testing.assert_allclose(other.layers["std"], whole.layers["std"], atol=1e-5)


def test_values_that_share_a_place_make_the_effects_and_deviations_of_their_sums(cells, tmp_path):
    values = sparse.csr_matrix(cells.X)
    halves = sparse.csr_matrix((np.repeat(values.data / 2, 2), np.repeat(values.indices, 2), 2 * values.indptr))
    twice = ad.AnnData(halves, obs=cells.obs, var=cells.var)
    twice.write_h5ad(tmp_path / "twice.h5ad")
    backed = ad.read_h5ad(tmp_path / "twice.h5ad", backed="r")
    expected = sr.effects.from_anndata(cells)
    for found in (sr.effects.from_anndata(twice), sr.effects.from_anndata(backed), sr.effects.read(backed.filename)):
        np.testing.assert_allclose(found.X, expected.X, atol=1e-6)
        np.testing.assert_allclose(found.layers["std"], expected.layers["std"], atol=1e-6)


def test_written_effects_are_read_back_as_they_were(cells, tmp_path):
    effects = sr.effects.from_anndata(cells, matrix="obsm/X_hvg")
    assert effects.var_names.tolist() == cells.var_names[cells.var["highly_variable"]].tolist()
    sr.effects.write(effects, tmp_path / "effects.h5ad")
    again = sr.effects.read(tmp_path / "effects.h5ad")
    assert np.array_equal(again.X, effects.X)
    assert again.varm["control_mean"].equals(effects.varm["control_mean"])
    mapping = sr.effects.MeanEffects.from_anndata(again)
    assert np.array_equal(mapping.effects["k562"][effects.obs["perturbation"].iloc[0]].shape, (effects.n_vars,))
    with pytest.raises(StateRagError, match="no mean effects"):
        sr.effects.write(cells, tmp_path / "cells.h5ad")


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_effects_in_a_zarr_store_are_read_back_too_and_no_files_at_all_are_refused(cells, tmp_path):
    effects = sr.effects.from_anndata(cells)
    effects.write_zarr(tmp_path / "effects.zarr")
    again = sr.effects.read(tmp_path / "effects.zarr", progress=False)
    np.testing.assert_array_equal(again.X, effects.X)
    assert again.obs["perturbation"].tolist() == effects.obs["perturbation"].tolist()
    cells.write_zarr(tmp_path / "cells.zarr")
    with pytest.raises(StateRagError, match="holds mean effects, not cells; read it alone"):
        sr.effects.read(tmp_path, progress=False)
    with pytest.raises(StateRagError, match="no files are given"):
        sr.effects.read([])


def test_of_a_split_only_training_cells_count(screen):
    found = sr.effects.read(screen.toml, progress=False)
    expected = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    keys = set(zip(found.obs["context"], found.obs["perturbation"], strict=True))
    assert keys == {(line, name) for line, effects in expected.effects.items() for name in effects}
    for row, (line, name) in enumerate(zip(found.obs["context"], found.obs["perturbation"], strict=True)):
        assert np.array_equal(found.X[row], expected.effects[line][name])


def test_a_context_without_controls_and_cells_without_labels_are_left_out_and_the_first_is_named(cells):
    changed = cells[~((cells.obs["cell_line"] == "rpe1") & (cells.obs["gene"] == "non-targeting"))].copy()
    changed.obs.loc[changed.obs_names[:3], "gene"] = np.nan
    found = sr.effects.from_anndata(changed)
    assert "rpe1" not in set(found.obs["context"])
    assert list(found.uns["state_rag"]["left_out"]) == ["rpe1: no control cells"]


def test_a_single_cell_has_a_mean_and_no_deviation():
    obs = pd.DataFrame({"gene": ["non-targeting", "non-targeting", "A"], "cell_line": ["x"] * 3}, index=list("abc"))
    found = sr.effects.from_anndata(ad.AnnData(sparse.csr_matrix(np.eye(3, dtype=np.float32)), obs=obs))
    assert found.X.tolist() == [[-0.5, -0.5, 1.0]]
    assert np.isnan(found.layers["std"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"perturbation": "guide"}, "no column 'guide'.*`perturbation`"),
        ({"context": "donor"}, "no column 'donor'.*`context`"),
        ({"matrix": "obsm/X_pca"}, "no matrix 'obsm/X_pca'; choose from X, obsm/X_hvg"),
        ({"control": "DMSO"}, "no effect can be told.*'DMSO'.*no control cells"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(cells, arguments, message):
    with pytest.raises(StateRagError, match=message):
        sr.effects.from_anndata(cells, **arguments)


def test_genes_of_several_files_are_found_by_name_and_missing_ones_refused(cells, tmp_path):
    half = np.arange(cells.n_obs) % 2 == 0
    for order in (slice(None), slice(None, None, -1)):
        cells[half].copy().write_h5ad(tmp_path / "a.h5ad")
        cells[~half].copy()[:, order].copy().write_h5ad(tmp_path / "b.h5ad")
        found = sr.effects.read(tmp_path, progress=False)
        expected = sr.effects.from_anndata(cells)
        assert found.var_names.tolist() == expected.var_names.tolist()
        assert np.allclose(found[expected.obs_names].X, expected.X, atol=1e-5)
    cells[:, 1:].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(StateRagError, match=r"b\.h5ad: 'X' lacks 1 of the \d+ genes of .*a\.h5ad \("):
        sr.effects.read(tmp_path, progress=False)


def test_a_table_of_effects_that_was_not_written_here_is_no_file_of_cells(cells, tmp_path):
    effects = sr.effects.from_anndata(cells)
    own = ad.AnnData(effects.X, obs=effects.obs[["perturbation", "context"]], var=effects.var)
    own.write_h5ad(tmp_path / "own.h5ad")
    with pytest.raises(StateRagError, match=r"a table of effects .* `sr.evidence.from_effects\(anndata.read_h5ad"):
        sr.effects.read(tmp_path / "own.h5ad")
