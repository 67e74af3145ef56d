import json
from dataclasses import fields

import anndata
import h5py
import numpy as np
import pytest

from state_rag.datasets.simulation.screen_sizes import PRESETS, ScreenSizes
from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.splits import write_split
from state_rag.embeddings.readers import read_embeddings
from state_rag.errors import StateRagError
from state_rag.files import sha256
from tests.datasets.helpers import SMALL, load_batches


def test_the_screen_has_the_shape_of_the_replogle_file(screen):
    adata = anndata.read_h5ad(screen.h5ad)
    assert adata.shape == (4 * (12 * 6 + 15), 30)
    assert set(adata.obs["cell_line"].cat.categories) == {"k562", "rpe1", "jurkat", "hepg2"}
    assert "non-targeting" in adata.obs["gene"].cat.categories
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert adata.obsm["X_hvg"].dtype == np.float32
    np.testing.assert_array_equal(adata.obsm["X_hvg"], adata.X.toarray()[:, adata.var["highly_variable"]])
    assert adata.var["highly_variable"].sum() == 20
    with h5py.File(screen.h5ad) as file:
        assert "_index" in file["var"]
        assert "log1p" in file["uns"]
    groups = adata.obs.groupby("cell_line", observed=True)["gem_group"].unique()
    assert all(len(group) == 2 for group in groups)


def test_cells_undo_to_whole_counts_of_one_depth(screen):
    values = np.expm1(anndata.read_h5ad(screen.h5ad).X.toarray().astype(np.float64))
    np.testing.assert_allclose(values.sum(axis=1), 30 * 5.0, rtol=1e-4)
    for row in values[:20]:
        unit = row[row > 0].min()
        multiples = row / unit
        found = any(np.abs(multiples * k - np.round(multiples * k)).max() < 1e-2 for k in range(1, 30))
        assert found


def test_the_true_effect_is_what_many_cells_average_to(tmp_path):
    sizes = {**SMALL, "n_perturbations": 4, "n_modules": 2, "cells_per_condition": 3000, "controls_per_line": 6000}
    screen = simulate_screen(tmp_path, seed=1, gem_groups_per_line=500, lines=("a", "b"), **_without_groups(sizes))
    adata = anndata.read_h5ad(screen.h5ad)
    truth = np.load(screen.truth_effects)
    dense = adata.X.toarray()
    for p, name in enumerate(truth["perturbations"]):
        for j, line in enumerate(truth["lines"]):
            here = (adata.obs["cell_line"] == line).to_numpy()
            cells = dense[here & (adata.obs["gene"] == name).to_numpy()]
            controls = dense[here & (adata.obs["gene"] == "non-targeting").to_numpy()]
            np.testing.assert_allclose(cells.mean(axis=0) - controls.mean(axis=0), truth["effects"][p, j], atol=0.07)


def _without_groups(sizes):
    return {name: value for name, value in sizes.items() if name != "gem_groups_per_line"}


def test_the_truth_names_mates_and_misleading_neighbours(screen):
    truth = json.loads(screen.truth.read_text())
    module, topic = truth["module"], truth["topic"]
    for name in module:
        assert truth["mates"][name] == [o for o in module if o != name and module[o] == module[name]]
        assert truth["misleading"][name] == [o for o in module if topic[o] == topic[name] and module[o] != module[name]]
    assert truth["seed"] == 3
    assert truth["parameters"]["n_genes"] == 30


def test_the_truth_holds_no_pickled_arrays(screen):
    with np.load(screen.truth_effects, allow_pickle=False) as truth:
        assert truth["effects"].shape == (12, 4, 30)
        assert {truth[key].dtype.kind for key in ("perturbations", "lines", "genes")} == {"U"}


def test_the_same_seed_writes_the_same_data_and_another_seed_does_not(screen, tmp_path):
    again = simulate_screen(tmp_path / "again", seed=3, **SMALL)
    other = simulate_screen(tmp_path / "other", seed=4, **SMALL)
    for name in ("embeddings", "truth", "truth_effects", "h5ad"):
        first, second, third = (getattr(s, name) for s in (screen, again, other))
        assert sha256(first) == sha256(second)
        assert sha256(first) != sha256(third)


def test_some_perturbations_can_lack_an_embedding_and_others_cells(tmp_path):
    screen = simulate_screen(tmp_path, missing=3, unseen=2, **SMALL)
    truth = json.loads(screen.truth.read_text())
    embedded = set(read_embeddings(screen.embeddings).names)
    with_cells = set(anndata.read_h5ad(screen.h5ad).obs["gene"].cat.categories) - {"non-targeting"}
    assert len(truth["missing_embedding"]) == 3
    assert len(truth["unseen"]) == 2
    assert set(truth["module"]) - embedded == set(truth["missing_embedding"])
    assert set(truth["module"]) - with_cells == set(truth["unseen"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_modules": 13}, "n_modules"),
        ({"n_hvgs": 31}, "n_hvgs"),
        ({"misleading_fraction": 1.5}, "misleading_fraction"),
        ({"missing": 12}, "missing"),
        ({"lines": ("a", "a")}, "lines"),
        ({"cells_per_condition": 0}, "cells_per_condition"),
        ({"effect_scale": float("nan")}, "effect_scale"),
        ({"effect_scale": 100.0}, "effect_scale"),
    ],
)
def test_impossible_sizes_are_refused_before_anything_is_written(wrong, named, tmp_path):
    with pytest.raises(StateRagError, match=named):
        simulate_screen(tmp_path / "out", **{**SMALL, **wrong})
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StateRagError, match="is a file"):
        simulate_screen(tmp_path / "out", **SMALL)
    assert (tmp_path / "out").read_text() == "mine"


def test_presets_name_parameters_that_exist(tmp_path):
    simulate_screen(tmp_path, **{**PRESETS["small"], "cells_per_condition": 2, "controls_per_line": 5})
    assert set(PRESETS["replogle"]) <= {field.name for field in fields(ScreenSizes)}


def test_upstream_loads_the_screen(screen, tmp_path):
    split = write_split(screen.h5ad, "hepg2", output=tmp_path / "split.toml")
    module, batches = load_batches(
        split.path, pert_col="gene", cell_type_key="cell_line", batch_col="gem_group", control_pert="non-targeting"
    )
    assert module.get_var_dims()["hvg_dim"] == 20
    assert len(module.get_var_dims()["gene_names"]) == 20
    assert all(batch["ctrl_cell_emb"].shape[1] == 20 for batch in batches)
    assert set(batches[2]["cell_type"]) == {"hepg2"}
    assert set(batches[2]["pert_name"]) <= {*split.test, "non-targeting"}
