"""Labels that tell doses: written by `data prepare`, split by dose, and read by the engine from the same column."""

import anndata
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.treated_labels import TreatmentColumns, labels_in
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.errors import StateRagError
from state_rag.evidence.training import Settings
from state_rag.names.treatments import canonical
from tests.datasets.test_commands import call

CONTROL = "non-targeting"


def frame(labels, **columns):
    return pd.DataFrame({"gene": labels, **columns}, index=[str(row) for row in range(len(labels))])


def read(labels, columns, **more):
    told = labels_in(frame(labels, **more), "gene", CONTROL, columns)
    return [str(label) for label in told.labels[told.code]]


def test_labels_in_the_column_of_perturbations_tell_what_they_tell():
    own = ["A:dose=0.5:time=24", "B:KO:dose=10", CONTROL, "A:dose=1+B:dose=2"]
    assert read(own, TreatmentColumns(dose="gene")) == [*own[:3], canonical(own[3])]
    assert read(["A:dose=0.5", "B:dose=1"], TreatmentColumns(dose="gene", time="hours"), hours=["6", "24"]) == [
        "A:dose=0.5:time=6",
        "B:dose=1:time=24",
    ]
    tahoe = "[('Afatinib', 500.0, 'nM')]"
    assert read([tahoe, CONTROL], TreatmentColumns(dose="gene")) == ["Afatinib:dose=0.5", CONTROL]
    with pytest.raises(StateRagError, match=r"some labels tell a dose or a time.* and 1 do not \(B\)"):
        read(["A:dose=0.5", "B"], TreatmentColumns(dose="gene"))
    with pytest.raises(StateRagError, match="'B' is no dose"):
        read(["B"], TreatmentColumns(dose="gene"))


@pytest.fixture(scope="module")
def dosed(tmp_path_factory):
    """A folder with a screen of four doses, a column each for name and dose, prepared with labels."""
    folder = tmp_path_factory.mktemp("dosed")
    cells = sr.datasets.screen(n_perturbations=8, n_genes=30, cells_per_condition=12, controls_per_line=12)
    names = cells.obs["gene"].astype(str)
    number = cells.obs.groupby(["gene", "cell_line"], observed=True).cumcount().to_numpy()
    dose = np.array([0.1, 0.3, 1.0, 10.0])[number % 4]
    cells.obs["dose"] = np.where(names == CONTROL, 0.0, dose)
    cells.uns.clear()
    cells.write_h5ad(folder / "screen.h5ad")
    call("data", "prepare", folder / "screen.h5ad", "-o", folder / "ready.h5ad", "--dose-col", "dose")
    return folder


def test_prepare_writes_doses_into_labels(dosed, tmp_path, capsys):
    before, after = (anndata.read_h5ad(dosed / f"{name}.h5ad").obs for name in ("screen", "ready"))
    for name, dose, label in zip(before["gene"].astype(str), before["dose"], after["gene"].astype(str), strict=True):
        assert label == (name if name == CONTROL else f"{name}:dose={dose:g}")
    call("data", "prepare", dosed / "screen.h5ad", "-o", tmp_path / "out.h5ad", "--dose-col", "dose")
    assert "wrote dose into the labels of obs column 'gene', which are 32 now (" in capsys.readouterr().out
    again = tmp_path / "again.h5ad"
    call("data", "prepare", dosed / "ready.h5ad", "-o", again, "--dose-col", "gene")  # labels stay
    assert anndata.read_h5ad(again).obs["gene"].astype(str).tolist() == after["gene"].astype(str).tolist()


def test_a_split_by_dose_is_written_previewed_and_fitted(dosed, capsys):
    split = dosed / "doses.toml"
    call("data", "split", dosed / "ready.h5ad", "--held-out-doses", "between", "-o", split)
    shown = capsys.readouterr().out
    assert "doses held out in " in shown
    assert "24 for training, 1 for validation, 7 for test" in shown
    call("data", "check", split)
    assert "- labels of obs column 'gene' tell doses or times (such as " in capsys.readouterr().out
    call("data", "check", split, "--dose-col", "gene", "--evidence")
    shown = capsys.readouterr().out
    assert "labels of obs column" not in shown
    assert "asks    unseen dose: 28 test conditions (7 perturbations in " in shown
    assert "asks    doses among them that lie between two that train: 7 of 7." in shown
    assert "doses   0.1 (32), 0.3 (32), 1 (32), 10 (32)" in shown
    assert "--dose-col gene" in shown
    quick = Settings(steps=3, episodes=2, calibrating=0)
    fit(split, dosed / "run", dose_col="gene", settings=quick, progress=False)
    run = read_run(dosed / "run")
    tested = {label for lists in read_split(split).fewshot.values() for label in lists["test"]}
    assert len(tested) == 7
    assert not tested & set(run.engine.responses.perturbations)  # which train nowhere
    label = sorted(tested)[0]
    one, other = (
        run.engine.predict("rpe1", [name], trust=False).mean for name in (label, label.partition(":")[0] + ":dose=10")
    )
    assert np.isfinite(one).all()
    assert (one != other).any()
    names = sorted({label.partition(":")[0] for label in run.engine.responses.perturbations})
    pd.DataFrame(np.random.default_rng(0).normal(size=(len(names), 6)), index=names).to_csv(dosed / "table.csv")
    fit(split, dosed / "told", dose_col="gene", settings=quick, progress=False, embeddings=dosed / "table.csv")
    known = read_run(dosed / "told").config["sources"]["text"]
    assert (known["known"], known["asked"]) == (len(names), len(names))  # by the names in labels


def test_whole_drugs_are_held_out_by_name(dosed, capsys):
    split = dosed / "drugs.toml"
    call("data", "split", dosed / "ready.h5ad", "--held-out-perturbations", "0.25", "-o", split)
    lists = next(iter(read_split(split).fewshot.values()))
    assert len(lists["test"]) == 8
    assert len({label.partition(":")[0] for label in lists["test"]}) == 2
    capsys.readouterr()
    call("data", "check", split, "--dose-col", "gene", "--evidence")
    assert "asks    unseen perturbation: 32 test conditions (8 perturbations in " in capsys.readouterr().out
