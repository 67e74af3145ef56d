import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.effects.conditions import Columns, open_pair
from state_rag.errors import StateRagError

COLUMNS = Columns("gene", "cell_line", "ctrl")


def cells(labels=("A", "A", "B", "ctrl", "ctrl"), line="k562", genes=("G1", "G2", "G3"), seed=0):
    values = np.random.default_rng(seed).random((len(labels), len(genes)), dtype=np.float32)
    obs = pd.DataFrame({"gene": list(labels), "cell_line": line}, index=[f"c{n}" for n in range(len(labels))])
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=list(genes)))


def test_controls_are_no_condition_and_rows_are_those_of_the_labels():
    pair = open_pair(cells(), cells(), COLUMNS)
    found = {condition.perturbation: condition.real.tolist() for condition in pair.lines["k562"]}
    assert found == {"A": [0, 1], "B": [2]}
    assert pair.controls["k562"][0].tolist() == [3, 4]
    assert pair.n_conditions == 2


def test_genes_in_another_order_are_brought_into_the_real_order_by_name():
    real, predicted = cells(), cells(genes=("G3", "G1", "G2"))
    pair = open_pair(predicted, real, COLUMNS)
    assert pair.features == ["G1", "G2", "G3"]
    np.testing.assert_array_equal(pair.read_predicted(np.array([0]))[0], predicted.X[0][[1, 2, 0]])


def test_missing_genes_are_named():
    with pytest.raises(StateRagError, match=r"1 of the 3 genes .* missing: G3; "):
        open_pair(cells(genes=("G1", "G2", "G9")), cells(), COLUMNS)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_gene_names_that_are_not_unique_cannot_be_brought_into_one_order():
    doubled = cells(genes=("G1", "G1", "G2"))
    with pytest.raises(StateRagError, match="real AnnData: gene names are not unique"):
        open_pair(cells(genes=("G2", "G3", "G1")), doubled, COLUMNS)
    with pytest.raises(StateRagError, match="predicted AnnData: gene names are not unique"):
        open_pair(doubled, cells(genes=("G1", "G2")), COLUMNS)
    assert open_pair(doubled, doubled, COLUMNS).features == ["G1", "G1", "G2"]


def test_different_widths_without_names_are_refused():
    real, predicted = cells(genes=("0", "1", "2")), cells(genes=("0", "1"))
    with pytest.raises(StateRagError, match="has 2 columns.*has 3"):
        open_pair(predicted, real, COLUMNS)


def test_given_names_are_used_where_the_files_have_none():
    bare = cells(genes=("0", "1", "2"))
    assert open_pair(bare, bare, COLUMNS, features=["X", "Y", "Z"]).features == ["X", "Y", "Z"]
    assert open_pair(bare, bare, COLUMNS).features == ["feature_0", "feature_1", "feature_2"]


def test_a_line_without_controls_is_refused_and_the_flag_is_named():
    with pytest.raises(StateRagError, match=r"no control cells .*k562.*'non-targeting'.*--control"):
        open_pair(cells(), cells(), Columns("gene", "cell_line", "non-targeting"))


def test_sides_with_different_conditions_are_refused_and_the_differing_ones_are_named():
    with pytest.raises(StateRagError, match=r"lacks 1 .*\(B in k562\)"):
        open_pair(cells(("A", "A", "A", "ctrl", "ctrl")), cells(), COLUMNS)


def test_members_of_a_combination_stand_in_any_order_and_one_side_has_one():
    labels = ("A+B", "A", "A", "ctrl", "ctrl")
    pair = open_pair(cells(("B+A", *labels[1:])), cells(labels), COLUMNS)
    assert [one.perturbation for one in pair.lines["k562"]] == ["A", "A+B"]
    with pytest.raises(StateRagError, match=r"predicted AnnData: obs column 'gene' has 1 perturbation under several"):
        open_pair(cells(("B+A", "A+B", "A", "ctrl", "ctrl")), cells(labels), COLUMNS)


def test_a_missing_column_is_reported_with_those_there_are():
    with pytest.raises(StateRagError, match=r"no column 'guide'; it has gene, cell_line"):
        open_pair(cells(), cells(), Columns("guide", "cell_line", "ctrl"))


def test_cells_without_a_label_are_counted_and_refused():
    adata = cells()
    adata.obs.loc["c1", "gene"] = np.nan
    with pytest.raises(StateRagError, match="1 cells have no gene"):
        open_pair(adata, adata, COLUMNS)


def test_only_the_perturbations_asked_for_are_kept():
    assert open_pair(cells(), cells(), COLUMNS, keep={"B"}).n_conditions == 1
    with pytest.raises(StateRagError, match="no perturbed cells"):
        open_pair(cells(), cells(), COLUMNS, keep={"Z"})
