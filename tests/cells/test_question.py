import numpy as np
import pytest

from state_rag.cells.answer import answer
from state_rag.cells.question import InputSpace, Names, Wanted, question
from state_rag.contract.feature_names import HVG, MemoryMatrices
from state_rag.contract.space import read_space
from state_rag.errors import StateRagError
from tests.contract.helpers import reordered, screen

CELLS = screen()
NAMES = Names("gene", "cell_line", "ctrl")
SPACE = InputSpace(HVG, {key: read_space(MemoryMatrices(CELLS), key) for key in ("X", HVG)})


def test_the_cells_as_they_are_labelled_have_the_runs_genes_and_nothing_else():
    asked = question(reordered(CELLS, np.arange(30)[::-1], np.arange(15)[::-1]), NAMES, Wanted(), SPACE)
    assert np.array_equal(asked.obsm["X_hvg"], CELLS.obsm["X_hvg"])
    assert asked.var_names.tolist() == CELLS.var_names.tolist()
    assert asked.X.nnz == 0
    assert asked.obs["source_cell"].tolist() == CELLS.obs_names.tolist()
    assert asked.obs["gene"].astype(str).tolist() == CELLS.obs["gene"].astype(str).tolist()


def test_a_run_on_x_gets_its_genes_in_its_order():
    asked = question(CELLS[:, ::-1].copy(), NAMES, Wanted(), InputSpace("X", SPACE.spaces))
    assert np.array_equal(asked.X.toarray(), CELLS.X.toarray())
    assert asked.var_names.tolist() == CELLS.var_names.tolist()


def test_perturbations_are_asked_of_every_context_from_its_own_controls():
    asked = question(CELLS, NAMES, Wanted(["New", "A"], None, 7), SPACE)
    counts = asked.obs.groupby(["cell_line", "gene"], observed=True).size()
    assert counts.to_dict() == {
        (line, name): 30 if name == "ctrl" else 7 for line in ("k562", "rpe1") for name in ("ctrl", "New", "A")
    }
    sources = CELLS.obs.loc[asked.obs["source_cell"]]
    assert (sources["gene"] == "ctrl").all()
    assert (sources["cell_line"].to_numpy() == asked.obs["cell_line"].to_numpy()).all()
    assert np.array_equal(asked.obsm["X_hvg"], CELLS[asked.obs["source_cell"]].obsm["X_hvg"])


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        (Names("guide", "cell_line", "ctrl"), Wanted(), "no column 'guide'.*`perturbation`"),
        (Names("gene", "donor", "ctrl"), Wanted(), "no column 'donor'.*`context`"),
        (Names("gene", "cell_line", "DMSO"), Wanted(), r"no control cells \(gene = 'DMSO'\) in k562, rpe1"),
        (NAMES, Wanted(None, ["hela"]), "no cells of hela; the cells are of k562, rpe1$"),
        (NAMES, Wanted(None, ["rpe"], asked_with=("--celltypes", "--control-pert")), "^--celltypes: no cells of rpe"),
        (
            NAMES,
            Wanted(None, ["rpe"]),
            "`contexts`: no cells of rpe; the cells are of k562, rpe1; close spellings: rpe -> rpe1",
        ),
        (Names("gene", "cell_line", "ctl"), Wanted(), "close spellings: ctl -> ctrl"),
        (Names("gene", "cell_lin", "ctrl"), Wanted(), "close spellings: cell_lin -> cell_line"),
        (NAMES, Wanted(None, None, 5), "together with `perturbations`"),
        (NAMES, Wanted(["A"], None, 0), "at least 1"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(names, wanted, said):
    with pytest.raises(StateRagError, match=said):
        question(CELLS, names, wanted, SPACE)


def test_a_context_without_controls_is_an_error_unless_that_is_allowed():
    part = CELLS[~((CELLS.obs["gene"] == "ctrl") & (CELLS.obs["cell_line"] == "rpe1"))].copy()
    with pytest.raises(StateRagError, match="no control cells.*in rpe1"):
        question(part, NAMES, Wanted(), SPACE)
    assert question(part, NAMES, Wanted(controls_everywhere=False), SPACE).n_obs == part.n_obs


def test_cells_without_a_column_of_contexts_are_one_context():
    asked = question(CELLS, Names("gene", None, "ctrl"), Wanted(["A"], None, 9), SPACE)
    assert (asked.obs["gene"] == "A").sum() == 9


@pytest.fixture
def values():
    return np.random.default_rng(0).random((4, 3)).astype(np.float32)


def test_predicted_genes_are_x_with_their_names(values):
    found = answer(values, CELLS.obs[:4], key=HVG, names=["G0", "G2", "new"], var=CELLS.var, record={"run": "r"})
    assert found.var_names.tolist() == ["G0", "G2", "new"]
    assert np.array_equal(found.X, values)
    assert np.array_equal(found.obsm["X_hvg"], values)
    assert found.uns["state_rag"] == {"run": "r", "space": HVG, "names_known": True}
    assert list(found.var) == []
    part = answer(values, CELLS.obs[:4], key=HVG, names=["G2", "G0", "G1"], var=CELLS.var, record={})
    assert part.var["highly_variable"].tolist() == [True, True, False]


def test_unknown_genes_are_numbered_and_said_to_be_unknown(values):
    found = answer(values, CELLS.obs[:4], key=HVG, names=None, record={})
    assert found.var_names.tolist() == ["X_hvg_0", "X_hvg_1", "X_hvg_2"]
    assert found.uns["state_rag"]["names_known"] is False


def test_a_predicted_embedding_leaves_x_absent(values, tmp_path):
    found = answer(values, CELLS.obs[:4], key="obsm/X_state", names=None, record={})
    assert found.X is None
    assert np.array_equal(found.obsm["X_state"], values)
    found.write_h5ad(tmp_path / "cells.h5ad")


@pytest.mark.parametrize("column", ["gene", "cell_line"])
def test_cells_without_a_label_are_refused_where_labels_say_what_to_predict(column):
    cells = CELLS.copy()
    cells.obs[column] = cells.obs[column].astype(object)
    cells.obs.iloc[-3:, cells.obs.columns.get_loc(column)] = None
    with pytest.raises(StateRagError, match=f"3 cells have no value in the obs column '{column}'.*notna"):
        question(cells, NAMES, Wanted(), SPACE)
    asked = question(cells, NAMES, Wanted(["New"], ["k562"]), SPACE)
    assert set(asked.obs["gene"].astype(str)) == {"ctrl", "New"}
