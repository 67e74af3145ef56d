import anndata
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.datasets.preparing.prepare import prepare
from state_rag.datasets.quickstart.plan import plan
from state_rag.datasets.splitting.split_check import check_split, find_names
from state_rag.datasets.splitting.splits import write_split
from state_rag.engine.fitting import fit
from state_rag.errors import StateRagError

CELLS = {"n_perturbations": 10, "n_genes": 30, "cells_per_condition": 6, "controls_per_line": 12}


def with_pair(labels, seed=0):
    """Cells of a small screen, some of whose labels are others."""
    cells = sr.datasets.screen(**CELLS, seed=seed)
    names = sorted(set(cells.obs["gene"]) - {"non-targeting"})
    new = dict(zip(names, labels, strict=False))
    cells.obs["gene"] = pd.Categorical([new.get(name, name) for name in cells.obs["gene"]])
    return cells


def split_of(*files, folder):
    listed = "".join(f'd{number} = "{path}"\n' for number, path in enumerate(files))
    train = "".join(f'd{number} = "train"\n' for number in range(len(files)))
    zero = '[zeroshot]\n"d0.rpe1" = "test"\n'
    path = folder / "split.toml"
    path.write_text(f"[datasets]\n{listed}[training]\n{train}{zero}")
    return path


@pytest.fixture
def both(tmp_path):
    with_pair(["A+B", "B+A", "C + A"]).write_h5ad(tmp_path / "both.h5ad")
    return tmp_path / "both.h5ad"


def test_what_reads_cells_refuses_two_labels_of_a_combination_and_names_the_command(both, tmp_path):
    message = r"both.h5ad: obs column 'gene' has 1 perturbation under several labels \(A\+B / B\+A\).*data prepare "
    split = split_of(both, folder=tmp_path)
    with pytest.raises(StateRagError, match=message):
        check_split(split, **find_names(split))
    with pytest.raises(StateRagError, match=message):
        write_split(both, "rpe1", output=tmp_path / "out.toml")
    for source in (split, both):
        with pytest.raises(StateRagError, match=message):
            sr.effects.read(source, progress=False)
        with pytest.raises(StateRagError, match=message):
            fit(source, tmp_path / "run", progress=False)
    with pytest.raises(StateRagError, match=r"1 perturbation under several labels.*such as 'A\+B'"):
        sr.effects.from_anndata(anndata.read_h5ad(both))


def test_two_files_that_order_members_otherwise_are_refused_and_prepared_they_agree(tmp_path):
    files = []
    for number, label in enumerate(("A+B", "B+A")):
        files.append(tmp_path / f"{number}.h5ad")
        with_pair([label], seed=number).write_h5ad(files[-1])
    split = split_of(*files, folder=tmp_path)
    with pytest.raises(StateRagError, match=r"1.h5ad: .*data prepare \S*1.h5ad` writes each once; in a zarr"):
        check_split(split, **find_names(split))
    split = split_of(files[0], prepare(files[1], tmp_path / "2.h5ad").path, folder=tmp_path)
    assert "A+B" in check_split(split, **find_names(split)).perturbations


def test_prepare_merges_the_cells_of_both_labels(both, tmp_path):
    before = anndata.read_h5ad(both).obs["gene"].astype(str)
    done = prepare(both, tmp_path / "out.h5ad")
    assert any("rewrote 2 labels of obs column 'gene' (B+A is A+B, C + A is A+C)" in change for change in done.changes)
    after = anndata.read_h5ad(done.path).obs["gene"].astype(str)
    assert (after == "A+B").sum() == before.isin(["A+B", "B+A"]).sum()
    assert (after == "A+C").sum() == (before == "C + A").sum()
    same = ~before.isin(["A+B", "B+A", "C + A"])
    assert (after[same] == before[same]).all()
    split = write_split(done.path, "rpe1", output=tmp_path / "out.toml")
    assert "A+B" in {*split.train, *split.val, *split.test}


@pytest.mark.parametrize("control", ["non-targeting", "vehicle"])
def test_the_data_s_own_control_beside_a_perturbation_is_no_second_one(tmp_path, control):
    path, alias = tmp_path / "in.h5ad", f"P+{control}"
    cells = with_pair(["P", alias, f"{control}+Q"])
    cells.obs["gene"] = cells.obs["gene"].cat.rename_categories({"non-targeting": control})
    cells.write_h5ad(path)
    split = split_of(path, folder=tmp_path)
    with pytest.raises(StateRagError, match=rf"1 perturbation under several labels \(P / P\+{control}\)"):
        sr.effects.read(path, control=control, progress=False)
    with pytest.raises(StateRagError, match=rf"\(P / P\+{control}\)"):
        fit(split, tmp_path / "run", control_pert=control, progress=False)
    after = anndata.read_h5ad(prepare(path, tmp_path / "out.h5ad", control=control).path).obs["gene"].astype(str)
    before = cells.obs["gene"].astype(str)
    assert (after == "P").sum() == before.isin(["P", alias]).sum()
    assert (after == "Q").sum() == (before == f"{control}+Q").sum()
    assert (after == control).sum() == (before == control).sum()


def test_labels_with_a_plus_in_brackets_are_no_combinations(tmp_path):
    labels = ["Z (+)-JQ1", "[('(+)-X', 0.5, 'uM')]", "CD4+"]
    with_pair(labels).write_h5ad(tmp_path / "in.h5ad")
    done = prepare(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert not [change for change in done.changes if "rewrote" in change]
    assert set(labels) <= set(anndata.read_h5ad(done.path).obs["gene"])


def test_data_check_ends_with_the_command(both, tmp_path, capsys):
    assert main(["data", "check", str(split_of(both, folder=tmp_path))]) != 0
    assert f"state-rag data prepare {both}" in capsys.readouterr().err


def test_quickstart_prepares_such_a_file_first(both):
    assert any("1 perturbations have several labels (A+B / B+A)" in why for why in plan(both).prepare)
