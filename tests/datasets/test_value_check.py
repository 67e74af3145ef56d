import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state_rag.datasets.splitting.split_check import check_split
from state_rag.datasets.splitting.splits import write_split
from state_rag.datasets.value_check import check_values, few_cells, refuse_other_genes
from state_rag.errors import StateRagError
from tests.contract.helpers import reordered, screen

NAMES = {"pert_col": "gene", "cell_type_key": "cell_line", "batch_col": "gem_group", "control_pert": "ctrl"}


def noticed(cells, folder, **more):
    """Write cells, split them and return what `data check` notices of their values."""
    cells.write_h5ad(folder / "cells.h5ad")
    split = write_split(folder / "cells.h5ad", "rpe1", output=folder / "split.toml", control="ctrl")
    summary = check_split(split.path, **NAMES, embed_key="X_hvg")
    return check_values(summary, pert_col="gene", control_pert="ctrl", embed_key="X_hvg", **more)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), genes=st.integers(12, 40), every=st.integers(1, 3))
def test_any_log_normalised_file_passes(tmp_path, seed, genes, every):
    values = noticed(screen(n_genes=genes, seed=seed, every=every), tmp_path)
    assert not [finding for finding in values.findings if finding.is_wrong]
    assert values.cells_read == values.cells == 240


FAULTS = {
    "counts": "counts",
    "linear": "without logarithm",
    "nan": "NaN",
    "infinite": "infinite",
    "negative": "negative",
    "zeros": "nothing but zeros",
}


@settings(max_examples=18, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fault=st.sampled_from(sorted(FAULTS)), row=st.integers(0, 239), column=st.integers(0, 14))
def test_a_planted_fault_is_found_by_its_name(tmp_path, fault, row, column):
    cells = screen()
    values = cells.obsm["X_hvg"].copy()
    if fault in ("counts", "linear", "zeros"):
        values = {"counts": np.rint(np.expm1(values)), "linear": np.expm1(values), "zeros": 0 * values}[fault]
    else:
        values[row, column] = {"nan": np.nan, "infinite": -np.inf, "negative": -0.01}[fault]
    cells.obsm["X_hvg"] = values
    wrong = [finding.text for finding in noticed(cells, tmp_path).findings if finding.is_wrong]
    assert any(FAULTS[fault] in text for text in wrong)


def test_a_fault_of_a_matrix_that_is_not_used_is_no_error(tmp_path):
    cells = screen()
    cells.X = np.rint(np.expm1(cells.X.toarray()))
    values = noticed(cells, tmp_path)
    assert not [finding for finding in values.findings if finding.is_wrong]
    assert any(
        "X holds counts" in finding.text and "not what the model reads" in finding.text for finding in values.findings
    )
    assert [finding for finding in noticed(cells, tmp_path, output_space="all").findings if finding.is_wrong]


def test_conditions_with_few_cells_and_lines_of_controls_alone_are_told(tmp_path):
    cells = screen()
    cells.obs["cell_line"] = cells.obs["cell_line"].cat.add_categories("hela")
    cells.obs.loc[cells.obs_names[:8:4], "cell_line"] = "hela"
    texts = " ".join(finding.text for finding in noticed(cells, tmp_path, set_size=31).findings)
    assert "hela: only controls" in texts
    assert "6 of 6 conditions have fewer cells than a set of 31" in texts
    assert few_cells({("train", "k562", "A"): 3, ("test", "rpe1", "B"): 2, ("val", "rpe1", "C"): 9}, 4) == [
        "B in rpe1: 2",
        "A in k562: 3",
    ]


def test_files_with_other_genes_are_refused_before_a_split_is_written(tmp_path):
    (tmp_path / "data").mkdir()
    screen().write_h5ad(tmp_path / "data" / "a.h5ad")
    reordered(screen(), np.arange(30), np.arange(15)[::-1]).write_h5ad(tmp_path / "data" / "b.h5ad")
    files = [tmp_path / "data" / name for name in ("a.h5ad", "b.h5ad")]
    with pytest.raises(
        StateRagError, match=r"b\.h5ad: the genes of obsm/X_hvg are not those of .*a\.h5ad: in another order"
    ):
        refuse_other_genes(files)
    with pytest.raises(StateRagError, match="data prepare .*--like"):
        write_split(tmp_path / "data", "rpe1", output=tmp_path / "split.toml", control="ctrl")
    assert not (tmp_path / "split.toml").exists()
    screen(seed=4)[:, 1:].copy().write_h5ad(files[1])
    with pytest.raises(StateRagError, match=r"prepare FILE --like \S*a\.h5ad \S*b\.h5ad --common -o NEW` for each"):
        refuse_other_genes(files)
    screen(seed=4).write_h5ad(files[1])
    refuse_other_genes(files)


def test_names_that_stand_for_several_genes_are_told(tmp_path):
    cells = screen()
    cells.var_names = [cells.var_names[1], *cells.var_names[1:]]
    texts = [finding.text for finding in noticed(cells, tmp_path).findings if not finding.is_wrong]
    assert any(f"1 gene names of X stand for several columns ({cells.var_names[1]})" in text for text in texts)
