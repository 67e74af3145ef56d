import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.cli import main
from state_rag.datasets.treated_labels import TreatmentColumns
from state_rag.datasets.untold_treatments import untold_columns


def cells(line="A549", **columns):
    """Return cells of two drugs and a vehicle in a line, twelve of each, with more columns."""
    obs = pd.DataFrame({"drug": np.repeat(["DMSO", "D1", "D2"], 12), "cell_line": line, **columns})
    values = np.log1p(np.random.default_rng(0).poisson(3, (36, 8)))
    found = ad.AnnData(values.astype(np.float32), obs=obs.astype("category"))
    found.obs_names = [f"c{number}" for number in range(36)]
    return found


def untold(tmp_path, named=None, **columns):
    """Return the columns that nobody named, with the option and the conditions that they mix."""
    cells(**columns).write_h5ad(tmp_path / "a.h5ad")
    found = untold_columns(tmp_path / "a.h5ad", "drug", "cell_line", "DMSO", named or TreatmentColumns())
    return [(one.column, one.option, one.mixed, one.conditions) for one in found]


@pytest.mark.parametrize(
    ("column", "values", "option"),
    [
        ("concentration_nM", [10, 1000], "--dose-col"),
        ("dose", ["10 nM", "1 uM"], "--dose-col"),
        ("Time.Point", ["6h", "24h"], "--time-col"),
        ("perturbation_type", ["CRISPRi", "CRISPRa"], "--mode-col"),
    ],
)
def test_a_column_that_differs_within_conditions_is_told_with_its_option(tmp_path, column, values, option):
    assert untold(tmp_path, **{column: values * 18}) == [(column, option, 2, 2)]


def test_what_is_named_or_tells_no_more_than_the_perturbation_is_not_told(tmp_path):
    assert not untold(tmp_path, TreatmentColumns(dose="dose"), dose=[1, 2] * 18)
    assert not untold(tmp_path, dose=np.repeat([0, 1, 5], 12))
    assert not untold(tmp_path, dose=[7] * 36)


def test_what_only_sounds_like_it_is_not_told(tmp_path):
    assert not untold(tmp_path, time=["early", "late"] * 18)
    assert not untold(tmp_path, pseudotime=np.arange(36), n_counts=[1, 2] * 18)


def test_a_check_and_quickstart_say_it(tmp_path, capsys):
    made = ad.concat([cells(line, dose=[10, 1000] * 18, batch="b") for line in ("A549", "MCF7")], index_unique="-")
    made.obs = made.obs.astype("category")
    made.obsm["X_hvg"] = made.X
    made.write_h5ad(tmp_path / "a.h5ad")
    said = "obs column 'dose' has several values (10, 1000) within 4 of 4 conditions"
    main(["quickstart", str(tmp_path / "a.h5ad")])
    assert said in " ".join(capsys.readouterr().out.replace("#", "").split())
    split = ["data", "split", str(tmp_path / "a.h5ad"), "-o", str(tmp_path / "s.toml")]
    main([*split, "--held-out", "A549", "--few-shot", "0"])
    main(["data", "check", str(tmp_path / "s.toml")])
    assert said in capsys.readouterr().out
