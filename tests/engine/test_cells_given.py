import anndata as ad
import numpy as np
import pytest

import state_rag as sr
from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.engine.cells_given import kind_of, write_split_of
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.errors import StateRagError
from tests.engine.runs import QUICK, SIZES


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return simulate_screen(tmp_path_factory.mktemp("screen"), seed=2, **SIZES)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_a_fit_on_zarr_shards_has_the_responses_of_the_one_file_and_a_split_of_its_own(screen, tmp_path):
    cells = ad.read_h5ad(screen.h5ad)
    shards = tmp_path / "shards"
    shards.mkdir()
    controls = cells.obs["gene"] == "non-targeting"
    # no shard has the controls of the cells that it has
    for number, rows in enumerate((controls, ~controls)):
        part = cells[rows.to_numpy()].copy()
        part.obs["gene"] = part.obs["gene"].cat.remove_unused_categories()
        part.write_zarr(shards / f"{number}.zarr")
    run = fit(shards, tmp_path / "run", embeddings=screen.embeddings, settings=QUICK, progress=False)
    one = sr.effects.read(screen.h5ad, matrix="obsm/X_hvg", progress=False)
    assert list(run.engine.responses.conditions) == [*zip(one.obs["context"], one.obs["perturbation"], strict=True)]
    np.testing.assert_allclose(run.engine.responses.effects, one.X, rtol=1e-6, atol=1e-6)
    again = read_run(tmp_path / "run")
    assert again.data["toml_config_path"] == str(tmp_path / "run" / "split.toml")
    assert read_split(tmp_path / "run" / "split.toml").datasets == {"cells": str(shards)}
    assert [file.cells for file in again.identity.files] == [int(controls.sum()), int((~controls).sum())]


def test_warnings_name_the_cells_and_not_the_split_that_is_written_of_them(screen, tmp_path, caplog):
    cells = ad.read_h5ad(screen.h5ad)
    cells.obs["gene"] = cells.obs["gene"].astype(str)
    first = cells.obs["gene"][cells.obs["gene"] != "non-targeting"].iloc[0]
    cells.obs.loc[cells.obs_names[(cells.obs["gene"] == first).to_numpy()][:3], "gene"] = first.lower()
    cells.write_h5ad(tmp_path / "spelled.h5ad")
    with caplog.at_level("WARNING"):
        fit(tmp_path / "spelled.h5ad", tmp_path / "run", embeddings=screen.embeddings, settings=QUICK, progress=False)
    told = [record.getMessage() for record in caplog.records if "spelled alike" in record.getMessage()]
    assert told
    assert all(text.startswith(f"{tmp_path / 'spelled.h5ad'}: ") for text in told)


def test_several_sources_are_data_sets_that_all_train(screen, tmp_path):
    other = tmp_path / "other.h5ad"
    other.symlink_to(screen.h5ad)
    split = read_split(write_split_of([screen.h5ad, f"{tmp_path}/o*.h5ad"], tmp_path / "split.toml"))
    assert split.datasets == {"cells": str(screen.h5ad), "cells_2": f"{tmp_path}/o*.h5ad"}
    assert split.training == {"cells", "cells_2"}
    assert split.trains_on("cells_2", "k562", "anything")


def test_splits_tables_and_cells_are_told_apart_and_not_mixed(screen, tmp_path):
    table, split = tmp_path / "table.h5ad", tmp_path / "split.toml"
    sr.effects.write(sr.effects.read(screen.h5ad, progress=False), table)
    write_split_of([screen.h5ad], split)
    assert [kind_of([one]) for one in (table, split, screen.h5ad, tmp_path, f"{tmp_path}/*")] == [
        "table",
        "split",
        *["cells"] * 3,
    ]
    assert kind_of([screen.h5ad, tmp_path]) == "cells"
    with pytest.raises(StateRagError, match="split.toml is a split, and 1 more"):
        kind_of([screen.h5ad, split])
    with pytest.raises(StateRagError, match="nowhere.h5ad: no such file"):
        kind_of([screen.h5ad, tmp_path / "nowhere.h5ad"])
    with pytest.raises(StateRagError, match=r"no .h5ad file or .zarr store matches"):
        write_split_of([f"{tmp_path}/no*.h5ad"], split)


def test_a_table_of_effects_with_the_columns_of_cells_is_told_how_to_name_them(screen, tmp_path):
    effects = sr.effects.read(screen.h5ad, progress=False)
    effects.obs = effects.obs.rename(columns={"perturbation": "gene", "context": "cell_line"})
    effects.write_h5ad(tmp_path / "table.h5ad")

    with pytest.raises(StateRagError, match=r"a row for each gene and cell_line.*rename\(columns=\{'gene': 'pert"):
        kind_of([tmp_path / "table.h5ad"])
