import itertools
import logging
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_check import check_split, find_names
from state_rag.errors import StateRagError
from tests.datasets.helpers import make_adata

NAMES = {"pert_col": "perturbation", "cell_type_key": "cell_type", "batch_col": "batch", "control_pert": "ctrl"}


def write(tmp_path, adata=None, *, location=None, tables='[training]\nd = "train"\n[zeroshot]\n"d.k562" = "test"\n'):
    if location is None:
        location = tmp_path / "a.h5ad"
        (make_adata() if adata is None else adata).write_h5ad(location)
    (tmp_path / "s.toml").write_text(f'[datasets]\nd = "{location}"\n{tables}')
    return tmp_path / "s.toml"


def test_counts_equal_a_plain_count_over_the_cells(tmp_path):
    adata = make_adata()
    tables = (
        '[training]\nd = "train"\n[zeroshot]\n"d.a549" = "val"\n[fewshot."d.k562"]\nval = ["AARS"]\ntest = ["WARS"]\n'
    )
    summary = check_split(write(tmp_path, adata, tables=tables), **NAMES)
    expected = {"train": 0, "val": 0, "test": 0, "control": 0}
    for pert, line in zip(adata.obs["perturbation"], adata.obs["cell_type"], strict=True):
        if pert == "ctrl":
            expected["control"] += 1
        elif line == "a549" or (line == "k562" and pert == "AARS"):
            expected["val"] += 1
        elif line == "k562" and pert == "WARS":
            expected["test"] += 1
        else:
            expected["train"] += 1
    assert summary.cells == expected
    assert summary.files == [tmp_path / "a.h5ad"]
    assert summary.perturbations == ("AARS", "KARS", "RPL3", "WARS")
    assert summary.test_perturbations == ("WARS",)
    assert summary.cell_types == ("T.cell 1", "a549", "k562")


def test_perturbations_without_cells_do_not_count(tmp_path):
    adata = make_adata()
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.add_categories(["GHOST"])
    assert "GHOST" not in check_split(write(tmp_path, adata), **NAMES).perturbations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pert_col": "gene"}, r"no obs column 'gene' .from data.kwargs.pert_col.*batch, cell_type, perturbation"),
        ({"cell_type_key": "gene"}, "data.kwargs.cell_type_key"),
        ({"batch_col": "gem_group"}, "data.kwargs.batch_col"),
        ({"control_pert": "DMSO_TF"}, "control 'DMSO_TF' .from data.kwargs.control_pert.*a usual name that is: ctrl"),
        ({"embed_key": "X_hvg"}, r"no obsm\['X_hvg'\].*present: none.*data prepare"),
    ],
)
def test_wrong_names_are_refused_with_those_present(changes, message, tmp_path):
    with pytest.raises(StateRagError, match=message):
        check_split(write(tmp_path), **{**NAMES, **changes})


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            '[training]\nd = "train"\n[zeroshot]\n"d.K562" = "test"\n',
            "K562 -> k562.*Cell lines present: T.cell 1, a549",
        ),
        (
            '[training]\nd = "train"\n[fewshot."d.k562"]\nval = ["RPL3"]\ntest = ["WARS1", "KARS"]\n',
            "test names 1 perturbations, out of 2, that the data lack .WARS1; close spellings: WARS1 -> WARS",
        ),
        ('[training]\nd = "train"\n', "test part holds no perturbed cell"),
        (
            '[training]\nd = "train"\n[fewshot."d.k562"]\nval = ["RPL3"]\ntest = []\n',
            "test part holds no perturbed cell",
        ),
        ('[zeroshot]\n"d.k562" = "test"\n', "train part holds no perturbed cell"),
    ],
)
def test_splits_that_do_not_fit_their_data_are_refused(tables, message, tmp_path):
    with pytest.raises(StateRagError, match=message):
        check_split(write(tmp_path, tables=tables), **NAMES)


def test_parts_that_are_not_required_may_be_empty(tmp_path):
    path = write(tmp_path, tables='[zeroshot]\n"d.k562" = "test"\n')
    assert check_split(path, **NAMES, require=("test",)).cells["train"] == 0


def test_a_missing_validation_list_is_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        summary = check_split(write(tmp_path), **NAMES)
    assert any("picks its best checkpoint, on the test set" in w for w in summary.warnings)
    assert "no validation perturbations" in caplog.text


def test_a_perturbation_in_both_lists_and_the_control_in_one_are_warnings(tmp_path):
    tables = '[training]\nd = "train"\n[fewshot."d.k562"]\nval = ["WARS"]\ntest = ["WARS", "ctrl"]\n'
    warnings = check_split(write(tmp_path, tables=tables), **NAMES).warnings
    assert any("in both lists (WARS)" in w for w in warnings)
    assert any("lists the control 'ctrl'" in w for w in warnings)


def test_layouts_that_upstream_cannot_read_point_to_prepare(tmp_path):
    named, plain, columns, missing = (make_adata() for _ in range(4))
    named.var.index.name = "symbol"
    plain.obs["cell_type"] = plain.obs["batch"].astype(int)
    columns.X = sparse.csc_matrix(columns.X)
    missing.obs["perturbation"] = missing.obs["perturbation"].where(np.arange(missing.n_obs) != 3)
    for adata, message in (
        (named, "the var index has the name 'symbol'"),
        (plain, "'cell_type' is not stored as categorical"),
        (columns, "X is stored as csc_matrix"),
        (missing, "'perturbation' has no value for 1 cells"),
    ):
        with pytest.raises(StateRagError, match=f"{message}.*data prepare"):
            check_split(write(tmp_path, adata), **NAMES)


def test_a_line_without_controls_is_refused(tmp_path):
    adata = make_adata()
    adata = adata[(adata.obs["cell_type"] != "a549") | (adata.obs["perturbation"] != "ctrl")].copy()
    with pytest.raises(StateRagError, match="'a549' has perturbed cells but no 'ctrl' cells"):
        check_split(write(tmp_path, adata), **NAMES)


def test_missing_and_damaged_data_are_named(tmp_path):
    with pytest.raises(StateRagError, match=r"s.toml, data set 'd': no such file or folder: .*gone.h5ad"):
        check_split(write(tmp_path, location=tmp_path / "gone.h5ad"), **NAMES)
    (tmp_path / "cut.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    with pytest.raises(StateRagError, match="cut.h5ad: 108 bytes that cannot be read as HDF5"):
        check_split(write(tmp_path, location=tmp_path / "cut.h5ad"), **NAMES)


@pytest.mark.parametrize("pattern", ["{folder}", "{folder}/*.h5ad", "{folder}/part_{{1,2}}.h5ad", "{folder}/../?ata"])
def test_folders_and_patterns_find_the_files_that_upstream_finds(pattern, tmp_path):
    from cell_load.data_modules import PerturbationDataModule

    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("part_1.h5ad", "part_2.h5ad", "notes.txt"):
        (folder / name).write_text("")
    location = pattern.format(folder=folder)
    upstream = PerturbationDataModule.__new__(PerturbationDataModule)._find_dataset_files(Path(location))
    assert find_data_files(location, "x") == list(upstream.values())
    assert len(upstream) == 2


def test_a_split_over_several_files_counts_them_all(tmp_path):
    (tmp_path / "data").mkdir()
    for seed, line in itertools.product((0, 1), ("k562", "a549")):
        adata = make_adata(seed=seed)
        adata[adata.obs["cell_type"] == line].copy().write_h5ad(tmp_path / "data" / f"{line}_{seed}.h5ad")
    summary = check_split(write(tmp_path, location=tmp_path / "data"), **NAMES)
    assert len(summary.files) == 4
    assert summary.cells == {"train": 32, "val": 0, "test": 32, "control": 16}


def test_names_are_found_where_none_is_given(tmp_path):
    assert find_names(write(tmp_path)) == NAMES
    with pytest.raises(StateRagError, match="--pert-col"):
        find_names(tmp_path / "s.toml", pert_col="gene")


def test_a_screen_of_the_replogle_size_is_checked_in_seconds(tmp_path):
    n, rng = 643_413, np.random.default_rng(0)
    names = np.array(["non-targeting", *(f"G{i}" for i in range(2023))])
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(rng.integers(0, 2024, n), names),
            "cell_line": pd.Categorical.from_codes(rng.integers(0, 4, n), ["hepg2", "jurkat", "k562", "rpe1"]),
            "gem_group": pd.Categorical.from_codes(rng.integers(0, 200, n), [str(i) for i in range(200)]),
        },
        index=pd.RangeIndex(n).astype(str),
    )
    anndata.AnnData(X=sparse.csr_matrix((n, 3), dtype=np.float32), obs=obs).write_h5ad(tmp_path / "big.h5ad")
    lists = f"val = {list(names[1:105])}\ntest = {list(names[105:729])}\n".replace("np.str_(", "").replace("')", "'")
    path = write(
        tmp_path, location=tmp_path / "big.h5ad", tables=f'[training]\nd = "train"\n[fewshot."d.hepg2"]\n{lists}'
    )
    started = time.perf_counter()
    summary = check_split(
        path, pert_col="gene", cell_type_key="cell_line", batch_col="gem_group", control_pert="non-targeting"
    )
    assert time.perf_counter() - started < 10
    assert len(summary.perturbations) == 2023
    assert len(summary.test_perturbations) == 624
    assert sum(summary.cells.values()) == n


def test_one_file_under_two_names_may_not_be_tested_on_and_trained_on(tmp_path):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "link.h5ad").symlink_to(tmp_path / "a.h5ad")
    toml = tmp_path / "s.toml"
    data = f'[datasets]\none = "{tmp_path}/a.h5ad"\ntwo = "{tmp_path}/link.h5ad"\n'
    few_shot = '[fewshot."one.k562"]\nval = ["AARS"]\ntest = ["WARS", "KARS"]\n'
    toml.write_text(f'{data}[training]\none = "train"\ntwo = "train"\n{few_shot}')
    with pytest.raises(StateRagError, match=r"'one' and 'two' are the same file, and 2 test .*'k562'.*KARS, WARS"):
        check_split(toml, **NAMES)
    toml.write_text(f'{data}[training]\none = "train"\n{few_shot}')
    assert check_split(toml, **NAMES).test_perturbations == ("KARS", "WARS")


def test_two_screens_of_one_line_may_share_perturbations(tmp_path):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    make_adata(seed=1).write_h5ad(tmp_path / "b.h5ad")
    (tmp_path / "s.toml").write_text(
        f'[datasets]\none = "{tmp_path}/a.h5ad"\ntwo = "{tmp_path}/b.h5ad"\n[training]\none = "train"\n'
        'two = "train"\n[fewshot."one.k562"]\nval = ["AARS"]\ntest = ["WARS"]\n'
    )
    warnings = check_split(tmp_path / "s.toml", **NAMES).warnings
    assert any("'two'" in warning and "WARS" in warning for warning in warnings)


def test_conditions_count_the_cells_of_each_part_line_and_perturbation(tmp_path):
    adata = make_adata()
    tables = '[training]\nd = "train"\n[fewshot."d.k562"]\nval = ["AARS"]\ntest = ["WARS"]\n'
    found = check_split(write(tmp_path, adata, tables=tables), **NAMES).conditions
    expected: dict = {}
    for pert, line in zip(adata.obs["perturbation"], adata.obs["cell_type"], strict=True):
        if pert != "ctrl":
            part = {"AARS": "val", "WARS": "test"}.get(pert, "train") if line == "k562" else "train"
            expected[part, line, pert] = expected.get((part, line, pert), 0) + 1
    assert found == expected


def test_held_out_perturbations_without_cells_in_their_line_or_with_few_are_told(tmp_path):
    adata = make_adata()
    label, line = adata.obs["perturbation"], adata.obs["cell_type"]
    adata = adata[~((line == "k562") & (label == "AARS"))].copy()
    tables = '[training]\nd = "train"\n[fewshot."d.k562"]\nval = ["AARS", "KARS"]\ntest = ["WARS"]\n'
    nowhere, few, also_few = check_split(write(tmp_path, adata, tables=tables), **NAMES).warnings
    assert "val names 1 perturbations, out of 2, that have no cells in k562 (AARS)" in nowhere
    assert "1 test perturbations have fewer than 5 cells in k562 (WARS: 4)" in few
    assert "(KARS: 4)" in also_few


def test_labels_that_are_spelled_alike_are_told_and_a_test_that_they_give_away_too(tmp_path):
    adata = make_adata()
    names = adata.obs["perturbation"].astype(str).to_numpy()
    names[np.flatnonzero(names == "AARS")[::2]] = "aars"
    names[np.flatnonzero(names == "ctrl")[:1]] = "Ctrl "
    adata.obs["perturbation"] = pd.Categorical(names)
    tables = '[training]\nd = "train"\n[fewshot."d.k562"]\nval = ["RPL3"]\ntest = ["AARS"]\n'
    found = "\n".join(check_split(write(tmp_path, adata, tables=tables), **NAMES).warnings)
    assert "labels of perturbations are spelled alike and count as different ('Ctrl ' / ctrl, AARS / aars)" in found
    assert "1 tested perturbations are trained or validated on under such another spelling (AARS)" in found


def test_cell_lines_that_are_spelled_alike_are_told(tmp_path):
    adata = make_adata()
    lines = adata.obs["cell_type"].astype(str).to_numpy()
    lines[np.flatnonzero(lines == "a549")[::2]] = "A549"
    adata.obs["cell_type"] = pd.Categorical(lines)
    found = "\n".join(check_split(write(tmp_path, adata), **NAMES).warnings)
    assert "labels of cell lines are spelled alike and count as different (A549 / a549)" in found


def test_further_controls_are_told(tmp_path):
    adata = make_adata()
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.rename_categories({"AARS": "AAVS1"})
    found = check_split(write(tmp_path, adata), **NAMES).warnings
    assert any("named like controls, and perturbations here, since the control is 'ctrl': AAVS1." in x for x in found)


def test_other_labels_raise_no_such_warning(tmp_path):
    assert not [x for x in check_split(write(tmp_path), **NAMES).warnings if "spelled" in x or "named like" in x]
