import csv

import anndata as ad
import numpy as np
import pytest
from scipy import stats

from state_rag.analysis.records import read_retrieval
from state_rag.cli import main
from state_rag.engine.folder import read_run
from state_rag.engine.predict import RETRIEVED, predict
from tests.engine.runs import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    screen, split, folder = make_run(tmp_path_factory.mktemp("run"))
    predict(read_run(folder), split, folder / "eval_last.ckpt", progress=False)
    return screen, folder


def rows_of(folder):
    with open(folder / "eval_last.ckpt" / RETRIEVED, newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_predicted_cell_has_a_row_and_weights_are_those_of_the_explanation(made):
    _, folder = made
    rows = rows_of(folder)
    cells = ad.read_h5ad(folder / "eval_last.ckpt" / "adata_pred.h5ad")
    assert len(rows) == (cells.obs["gene"] != "non-targeting").sum()
    (record, *_) = read_retrieval(folder / "eval_last.ckpt" / RETRIEVED, progress=False)
    found = read_run(folder).engine.explain(record.cell_line, record.perturbation)
    total = {}
    for (_, name), weight in zip(found.conditions, np.abs(found.weights), strict=True):
        total[name] = total.get(name, 0.0) + weight
    assert record.neighbours[0] == max(total, key=total.get)
    assert record.inclusion[0] == pytest.approx(1.0)


def test_differential_genes_are_those_of_the_real_cells_by_welchs_test(made):
    _, folder = made
    row = next(row for row in rows_of(folder) if int(row["n_degs"]) > 1)
    real = ad.read_h5ad(folder / "eval_last.ckpt" / "adata_real.h5ad")
    own, control = (real[real.obs["gene"] == name].X for name in (row["pert_name"], "non-targeting"))
    p = stats.ttest_ind(own, control, equal_var=False).pvalue
    fold = np.abs(own.mean(axis=0) - control.mean(axis=0)) / np.log(2)
    wanted = [gene for gene in np.argsort(p, kind="stable") if p[gene] < 0.1 and fold[gene] >= 0.05]
    assert row["degs"].split("|") == real.var_names[wanted][:50].tolist()
    assert int(row["n_degs"]) == len(wanted)


def test_retrieval_is_analysed_and_switching_off_is_refused_with_the_way_on(made, tmp_path, capsys):
    _, folder = made
    words = ["retrieval", str(folder), "--quiet", "-o", str(tmp_path)]
    assert main(words) == 0
    assert "conditions in hepg2" in capsys.readouterr().out
    assert main([*words, "--ablate"]) == 1
    assert "state-rag explain" in capsys.readouterr().err
