import anndata as ad
import gge as theirs
import numpy as np
import pandas as pd
import pytest

from state_rag.effects.conditions import Columns, open_pair
from state_rag.evaluation import gge_command
from state_rag.evaluation.evaluate import Settings, evaluate_pair
from state_rag.metrics import gge as hooks
from tests.evaluation.test_evaluate import screen as cells

OURS = list(hooks.METRIC_CLASSES)


@pytest.fixture
def pair():
    real, predicted = cells(0.6)
    yield real, predicted
    hooks.forget()


def test_prepared_metrics_in_gge_equal_our_own_evaluation(pair, tmp_path):
    real, predicted = pair
    gge_command.prepare(real, predicted, Columns(), Settings(components=20))
    result = theirs.evaluate(
        real,
        predicted,
        condition_columns=["gene", "cell_line"],
        metrics=OURS,
        output_dir=tmp_path,
        verbose=False,
        control_key="non-targeting",
    )
    found = result.to_dataframe()
    controls = found["gene"] == "non-targeting"
    assert found.loc[controls, OURS].isna().all().all()
    expected = evaluate_pair(open_pair(predicted, real, Columns()), settings=Settings(components=20), progress=False)
    wanted = expected.model().set_index(["perturbation", "cell_line"])
    found = found[~controls].set_index(["gene", "cell_line"]).loc[wanted.index]
    for name in OURS:
        np.testing.assert_allclose(found[name], wanted[name.removeprefix("rag_")], rtol=1e-4, atol=1e-6, err_msg=name)
    per_gene = pd.read_csv(tmp_path / "per_gene_rag_energy_pca50.csv", index_col=0)
    assert per_gene.shape == (40, 26)


def test_gges_command_runs_with_ours_added_and_is_left_as_it_was(pair, tmp_path):
    originals = theirs.cli.create_parser, theirs.cli.get_metric_classes
    for name, adata in zip(("real", "predicted"), pair, strict=True):
        ad.AnnData(adata.X, obs=adata.obs).write_h5ad(tmp_path / f"{name}.h5ad")
    gge_command.run_command(
        [
            "--real",
            str(tmp_path / "real.h5ad"),
            "--generated",
            str(tmp_path / "predicted.h5ad"),
            "--conditions",
            "gene",
            "cell_line",
            "--output",
            str(tmp_path / "out"),
            "--metrics",
            "r_squared",
            "rag_discrimination",
            "--no-plots",
            "--quiet",
        ],
        Columns(),
    )
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table["rag_discrimination"].notna().sum() == 24
    assert table["r_squared"].notna().all()
    assert (theirs.cli.create_parser, theirs.cli.get_metric_classes) == originals
