import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.engine.trust_table import OF_CELLS
from state_rag.errors import StateRagError
from tests.end_to_end.commands import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(project):
    return ad.read_h5ad(project.h5ad)


@pytest.fixture(scope="module")
def predictor(ptrag):
    return sr.load(ptrag)


def infer(folder, h5ad, output, cwd, *more):
    usual = ["--pert-col", "gene", "--embed-key", "X_hvg", "--output", str(output)]
    run(["tx", "infer", "--model-dir", str(folder), "--adata", str(h5ad), *usual, *more], cwd)
    return ad.read_h5ad(output)


def test_the_numbers_are_those_of_tx_infer_on_the_same_cells(predictor, ptrag, cells, project, tmp_path):
    expected = infer(ptrag / "ptrag", project.h5ad, tmp_path / "out.h5ad", tmp_path)
    found = predictor.predict(cells)
    assert found.obs_names.tolist() == cells.obs_names.tolist()
    assert np.array_equal(found.X, expected.obsm["X_hvg"])
    assert found.var_names.tolist() == cells.var_names[cells.var["highly_variable"]].tolist()


def test_asked_for_perturbations_are_predicted_as_tx_infer_does_with_cells_of_that_label(
    predictor, ptrag, cells, tmp_path
):
    wanted = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[:3]
    found = predictor.predict(cells, wanted, ["hepg2", "k562"], n_cells=20)
    controls = cells[cells.obs["cell_line"].isin(["hepg2", "k562"]) & (cells.obs["gene"] == "non-targeting")].copy()
    parts = [controls]
    for line in ("hepg2", "k562"):
        own = controls[controls.obs["cell_line"] == line]
        for name in wanted:
            clones = own[:20].copy()
            clones.obs["gene"] = name
            parts.append(clones)
    whole = ad.concat(parts, join="outer", index_unique="-", merge="same")
    whole.write_h5ad(tmp_path / "in.h5ad")
    expected = infer(ptrag / "ptrag", tmp_path / "in.h5ad", tmp_path / "out.h5ad", tmp_path)
    assert np.array_equal(found.X, expected.obsm["X_hvg"])
    assert found.obs["perturbation"].astype(str).tolist() == expected.obs["gene"].astype(str).tolist()
    assert found.obs["context"].astype(str).tolist() == expected.obs["cell_line"].astype(str).tolist()
    assert found.obs["gene"].tolist() == found.obs["perturbation"].tolist()


def test_every_cell_says_which_control_of_its_context_it_was_predicted_from(predictor, cells):
    found = predictor.predict(cells, [cells.obs["gene"].astype(str).iloc[0]], n_cells=40)
    sources = cells.obs.loc[found.obs["source_cell"]]
    assert (sources["gene"] == "non-targeting").all()
    assert sources["cell_line"].astype(str).tolist() == found.obs["context"].astype(str).tolist()


def test_predictions_start_from_the_source_cells(predictor, cells):
    """A cell whose source has other values is predicted otherwise, and one of another set is not."""
    name = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[0]
    before = predictor.predict(cells, [name], ["hepg2"], n_cells=16)
    changed = cells.copy()
    used = set(before.obs["source_cell"][before.obs["perturbation"] == name])
    unused = next(
        label
        for label in cells.obs_names[(cells.obs["gene"] == "non-targeting") & (cells.obs["cell_line"] == "hepg2")]
        if label not in used
    )
    changed.obsm["X_hvg"][changed.obs_names.get_loc(unused)] += 3
    after = predictor.predict(changed, [name], ["hepg2"], n_cells=16)
    own = before.obs["perturbation"] == name
    assert np.array_equal(before.X[own], after.X[own])
    changed.obsm["X_hvg"][changed.obs_names.get_loc(sorted(used)[0])] += 3
    again = predictor.predict(changed, [name], ["hepg2"], n_cells=16)
    assert not np.array_equal(before.X[own], again.X[own])


def test_what_was_retrieved_is_a_table_for_each_predicted_condition(predictor, cells):
    name = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[0]
    predictor.predict(cells, [name], ["hepg2"], n_cells=24)
    table = predictor.retrieved(name, "hepg2")
    assert table["rank"].tolist() == list(range(1, 9))
    assert name not in set(table["neighbour"])
    assert (table["similarity"].diff().dropna() <= 1e-6).all()
    assert table["inclusion"].between(0, 1).all()
    assert (table["n_cells"] == 24).all()
    with pytest.raises(StateRagError, match="nothing is known of what was retrieved for 'NOSUCH'"):
        predictor.retrieved("NOSUCH", "hepg2")


def test_backed_cells_give_the_same_prediction(predictor, cells, project):
    name = cells.obs["gene"].astype(str).iloc[0]
    backed = ad.read_h5ad(project.h5ad, backed="r")
    one, other = (predictor.predict(some, [name], n_cells=8) for some in (cells, backed))
    assert np.array_equal(one.X, other.X)


def test_a_run_of_plain_state_predicts_too_but_retrieves_nothing(plain_pair, cells, project, tmp_path):
    expected = infer(
        plain_pair["with"], project.h5ad, tmp_path / "o.h5ad", tmp_path, "--checkpoint",
        str(plain_pair["with"] / "checkpoints" / "last.ckpt"),
    )  # fmt: skip
    plain = sr.load(plain_pair["with"], "last.ckpt")
    assert np.array_equal(plain.predict(cells).X, expected.obsm["X_hvg"])
    with pytest.raises(StateRagError, match="does not retrieve"):
        plain.retrieved("A", "hepg2")


def test_predictions_can_be_written_and_evaluated(predictor, cells, tmp_path):
    held_out = cells[cells.obs["cell_line"] == "hepg2"]
    predicted = predictor.predict(held_out)
    predicted.write_h5ad(tmp_path / "predicted.h5ad")
    again = ad.read_h5ad(tmp_path / "predicted.h5ad")
    assert again.uns["state_rag"]["checkpoint"] == predictor.checkpoint.name
    real = ad.AnnData(held_out.obsm["X_hvg"], obs=held_out.obs, var=pd.DataFrame(index=predicted.var_names))
    table = sr.metrics.evaluate(again, real, metrics=["mse", "pearson_delta"])
    assert table["mse"].notna().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perturbations": ["NOSUCH"]}, "NOSUCH"),
        ({"contexts": ["jurkat"]}, "no cells of jurkat"),
        ({"perturbation": "guide"}, "no column 'guide'.*`perturbation`"),
        ({"control": "DMSO"}, "no control cells.*'DMSO'.*`control`"),
        ({"n_cells": 3}, "n_cells"),
    ],
)
def test_a_wrong_question_is_refused_with_what_to_change(predictor, cells, changes, message):
    with pytest.raises(StateRagError, match=message):
        predictor.predict(cells, **changes)


def test_a_single_name_is_a_name_and_no_list_of_letters(predictor, cells):
    name = sorted(set(cells.obs["gene"].astype(str)) - {"non-targeting"})[0]
    one = predictor.predict(cells, name, "k562", n_cells=4)
    assert np.array_equal(one.X, predictor.predict(cells, [name], ["k562"], n_cells=4).X)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(StateRagError, match=str(tmp_path)):
        sr.load(tmp_path)


def test_cells_of_an_evidence_run_say_how_far_to_trust_them_as_those_of_tx_infer_do(evidence_run, tmp_path):
    screen, folder = evidence_run
    cells = ad.read_h5ad(screen)
    expected = infer(folder, screen, tmp_path / "out.h5ad", tmp_path)
    found = sr.load(folder).predict(cells)
    columns = list(OF_CELLS)
    assert set(found.obs["trust_grade"]) > {""}
    pd.testing.assert_frame_equal(found.obs[columns], expected.obs[columns], check_categorical=False)
    assert set(found.layers) == set(expected.layers)
    np.testing.assert_array_equal(found.X, expected.X)
    again = sr.load(folder).predict(found)  # what was said of given cells is not said of these
    pd.testing.assert_frame_equal(again.obs[columns], found.obs[columns])


def test_nothing_is_printed(predictor, cells, capfd):
    predictor.predict(cells, [cells.obs["gene"].astype(str).iloc[0]], n_cells=4)
    assert capfd.readouterr().out == ""
