import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.engine.adding import add
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.engine.predict import predict
from state_rag.engine.size_curve import size_curve
from state_rag.errors import StateRagError
from state_rag.evidence.training import Settings
from tests.engine.runs import QUICK

GENES = [f"G{number}" for number in range(20)]
DOSES = (0.01, 0.1, 1.0, 10.0)
COLUMNS = {
    "pert_col": "drug",
    "cell_type_key": "line",
    "batch_col": "batch",
    "control_pert": "DMSO",
    "dose_col": "dose",
    "time_col": "when",
    "embed_key": None,
    "output_space": "all",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hold cells of drugs at doses in two lines and a run fitted on them, written as text where the truth grows."""
    place = tmp_path_factory.mktemp("doses")
    rng = np.random.default_rng(0)
    profiles = np.abs(rng.normal(size=(6, len(GENES))))
    values, rows = [], []
    for line in ("L1", "L2"):
        base = 1 + rng.random(len(GENES))
        for drug, dose in [("DMSO", 0.0), *((f"D{n}", d) for n in range(6) for d in DOSES)]:
            effect = 0 if drug == "DMSO" else dose / (dose + 0.3) * profiles[int(drug[1])]
            values.append(base + effect + 0.1 * rng.normal(size=(8, len(GENES))))
            rows += [(drug, "vehicle" if drug == "DMSO" else f"{1000 * dose:g} nM", line, "24h")] * 8
    obs = pd.DataFrame(rows, columns=["drug", "dose", "line", "when"]).astype("category")
    obs["batch"] = pd.Categorical(["b"] * len(obs))
    obs.index = [str(number) for number in range(len(obs))]
    cells = ad.AnnData(np.concatenate(values).clip(0).astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))
    cells.write_h5ad(place / "cells.h5ad")
    split = f'[datasets]\nscreen = "{place / "cells.h5ad"}"\n\n[training]\nscreen = "train"\n\n'
    split += '[zeroshot]\n\n[fewshot]\n[fewshot."screen.L2"]\nval = []\ntest = ["D0", "D1"]\n'
    (place / "split.toml").write_text(split)
    settings = Settings(steps=40, episodes=0, calibrating=40)
    fit(place / "split.toml", place / "run", settings=settings, progress=False, **COLUMNS)
    return place


OPTIONS = [
    *(word for key, value in list(COLUMNS.items())[:6] for word in (f"--{key.replace('_', '-')}", value)),
    *("--embed-key", "null", "--output-space", "all"),
]


def test_conditions_that_differ_in_dose_are_different_and_what_is_tested_is_not_seen(folder):
    run = read_run(folder / "run")
    assert run.data["dose_col"] == "dose"
    assert "mode_col" not in run.data
    there = set(run.engine.responses.conditions)
    assert ("L1", "D0:dose=0.1:time=24") in there
    assert not any(line == "L2" and label.startswith(("D0", "D1")) for line, label in there)
    assert len(there) == 6 * 4 + 4 * 4


def test_predicted_cells_carry_labels_and_are_evaluated_by_them(folder, capsys):
    run = read_run(folder / "run")
    place = predict(run, folder / "split.toml", folder / "run" / "eval_last.ckpt", progress=False)
    predicted, real = (ad.read_h5ad(place / name) for name in ("adata_pred.h5ad", "adata_real.h5ad"))
    labels = {f"D{n}:dose={d:g}:time=24" for n in (0, 1) for d in DOSES} | {"DMSO"}
    assert set(predicted.obs["drug"]) == set(real.obs["drug"]) == labels
    main(["evaluate", str(folder / "run"), "--metrics", "pearson_delta"])
    table = pd.read_csv(next((folder / "run").glob("eval_*/gge/results.csv")))
    assert set(table["drug"]) == labels - {"DMSO"}


def test_the_size_of_an_effect_over_doses_is_written_and_judged(folder, tmp_path, capsys):
    told = ["explain", str(folder / "run"), "--perturbation", "D2:time=24", "--context", "L2", "-o", str(tmp_path)]
    main([*told, "--doses", "0,10nM,0.03,0.1,1,10"])
    said = capsys.readouterr().out
    assert "D2:time=24 in L2, over doses 0 to 10: monotone" in said.replace("\n", " ")
    table = pd.read_csv(next(tmp_path.glob("*_doses.csv")))
    assert table["dose"].tolist() == [0, 0.01, 0.03, 0.1, 1, 10]
    assert table["size"][0] == 0
    assert table["measured"].isna().tolist() == [True, False, True, False, False, False]
    assert len(list(tmp_path.glob("*_doses.png"))) == 1
    assert main([*told, "--times", "24"]) == 1
    assert "--times: 24; give two different values or more" in capsys.readouterr().err


def test_an_effect_that_falls_with_the_dose_is_said(folder):
    run = read_run(folder / "run")
    falling = run.engine.responses
    place = [row for row, (_, label) in enumerate(falling.conditions) if label.startswith("D2:dose=10")]
    falling.effects[place] *= 0.05
    run.engine.bank.effects[place] *= 0.05
    assert "monotone" in sr.load(str(folder / "run")).size_curve("D3:time=24", "L2", [0.1, 1]).attrs["words"]
    found = size_curve(run, "D2:time=24", "L1", [0.3, 2, 9, 100])  # a measured dose is told without its own response
    assert (2, 9) in found.falls
    assert "NOT monotone" in found.words
    assert "Beyond what was measured, so guessed: 100" in found.words


def test_curves_are_refused_where_the_run_tells_no_doses(evidence_run):
    with pytest.raises(StateRagError, match="the run tells no doses; fit it with --dose-col"):
        size_curve(read_run(evidence_run[1]), "GENE1", "k562", [1, 2])


def test_effects_with_columns_of_mode_and_dose_are_fitted_alike(folder, tmp_path):
    cells = ad.read_h5ad(folder / "cells.h5ad")
    about = {"perturbation": "drug", "context": "line", "control": "DMSO"}
    labelled = sr.effects.from_anndata(cells, **about, dose="dose", time="when")
    assert "D0:dose=0.1:time=24" in set(labelled.obs["perturbation"])
    sr.effects.write(labelled, tmp_path / "labelled.h5ad")
    parts = labelled.obs["perturbation"].astype(str).str.extract(r"(\w+):dose=(\S+):time=24")
    apart = ad.AnnData(labelled.X, obs=labelled.obs[["context"]], var=labelled.var)
    apart.obs["perturbation"], apart.obs["amount"] = parts[0].to_numpy(), parts[1].astype(float).to_numpy()
    apart.obs["kind"] = "drug"
    apart.write_h5ad(tmp_path / "apart.h5ad")
    first = fit(tmp_path / "labelled.h5ad", tmp_path / "first", settings=QUICK, progress=False)
    options = {"mode_col": "kind", "dose_col": "amount"}
    second = fit(tmp_path / "apart.h5ad", tmp_path / "second", settings=QUICK, progress=False, **options)
    assert first.engine.responses.treated
    assert second.engine.responses.perturbations[0] == "D0:drug:dose=0.01"
    assert read_run(tmp_path / "second").data == options
    with pytest.raises(StateRagError, match="labels that tell mode, dose or time already"):
        fit(tmp_path / "labelled.h5ad", tmp_path / "third", dose_col="n_cells", progress=False)


def test_predicted_effects_name_labels_and_a_dose_that_was_not_measured_can_be_asked(folder):
    run = sr.load(str(folder / "run"))
    found = run.effects("L2", ["D0:dose=0.5:time=24"])
    assert found.obs["perturbation"].tolist() == ["D0:dose=0.5:time=24"]
    every = run.effects("L2")
    assert set(every.obs["perturbation"]) == {f"D{n}:dose={d:g}:time=24" for n in (0, 1) for d in DOSES}


def test_new_cells_are_labelled_like_those_of_the_run(folder, tmp_path):
    cells = ad.read_h5ad(folder / "cells.h5ad")
    cells = cells[(cells.obs["line"] == "L1").to_numpy() & cells.obs["drug"].isin(["D5", "DMSO"]).to_numpy()].copy()
    cells.obs["line"] = "L3"
    cells.write_h5ad(tmp_path / "new.h5ad")
    added = add(read_run(folder / "run"), tmp_path / "new.h5ad", progress=False).merged.added
    assert set(added) == {("L3", f"D5:dose={d:g}:time=24") for d in DOSES}


def test_cells_of_ones_own_are_asked_about_by_their_dose(folder):
    cells = ad.read_h5ad(folder / "cells.h5ad")
    found = sr.load(str(folder / "run")).predict(cells[(cells.obs["line"] == "L2").to_numpy()].copy())
    assert "D0:dose=10:time=24" in set(found.obs["drug"])
    assert "std" in found.layers


def test_data_check_tells_doses_and_times(folder, capsys):
    main(["data", "check", str(folder / "split.toml"), *OPTIONS])
    said = capsys.readouterr().out
    assert "doses   0.01 (12), 0.1 (12), 1 (12), 10 (12)" in said
    assert "times   24 (48)" in said
    assert "D0:dose=0.01:time=24" in said
    assert "--dose-col dose --time-col when" in said


def test_what_is_no_dose_is_refused_with_its_column(folder, tmp_path):
    cells = ad.read_h5ad(folder / "cells.h5ad")
    cells.obs["dose"] = pd.Categorical(["much"] * len(cells))
    with pytest.raises(StateRagError, match=r"column 'dose' \(--dose-col\): 'much' is no dose"):
        sr.effects.from_anndata(cells, perturbation="drug", context="line", control="DMSO", dose="dose")
    cells.obs["dose"] = pd.Categorical(["1 uM", "1"] * (len(cells) // 2))
    with pytest.raises(StateRagError, match="mixes units"):
        sr.effects.from_anndata(cells, perturbation="drug", context="line", control="DMSO", dose="dose")


def test_a_run_without_these_columns_says_nothing_of_them(evidence_run):
    run = read_run(evidence_run[1])
    assert not {"mode_col", "dose_col", "time_col"} & set(run.data)
    assert run.engine.bank.treatments is None
    assert "axes" not in json.dumps(run.engine.to_state()["settings"])


def test_the_command_hands_the_columns_on(folder, tmp_path, monkeypatch):
    given = {}

    def noted(*args, **named):
        given.update(named)
        raise StateRagError("enough")

    monkeypatch.setattr("state_rag.engine.fitting.fit", noted)
    main(["evidence", "fit", str(folder / "split.toml"), "-o", str(tmp_path / "run"), *OPTIONS, "--mode-col", "m"])
    assert {key: given[key] for key in COLUMNS} == COLUMNS
    assert given["mode_col"] == "m"


def test_a_unit_that_the_data_do_not_name_is_refused_wherever_doses_are_asked(folder, tmp_path, capsys):
    cells = ad.read_h5ad(folder / "cells.h5ad")
    amounts = [0.0 if text == "vehicle" else float(text.split()[0]) for text in cells.obs["dose"]]
    cells.obs["dose"] = pd.Categorical(amounts)  # nM, as sci-Plex has them: the numbers alone
    cells.write_h5ad(tmp_path / "plain.h5ad")
    toml = (folder / "split.toml").read_text().replace(str(folder / "cells.h5ad"), str(tmp_path / "plain.h5ad"))
    (tmp_path / "split.toml").write_text(toml)
    fit(tmp_path / "split.toml", tmp_path / "run", settings=QUICK, progress=False, **COLUMNS)
    plain, molar = read_run(tmp_path / "run"), read_run(folder / "run")
    assert (plain.config["dose_unit"], molar.config["dose_unit"]) == ("", "µM")
    assert plain.own_name("D2:time=24:dose=100") == "D2:dose=100:time=24"
    assert molar.own_name("D2:time=24:dose=100 nM") == "D2:dose=0.1:time=24"
    with pytest.raises(StateRagError, match="'100nM' names a unit, and the run's data have doses without a unit"):
        plain.own_name("D2:dose=100nM:time=24")
    told = ["explain", str(tmp_path / "run"), "--perturbation", "D2:time=24", "--context", "L2"]
    assert main([*told, "--doses", "10nM,100nM"]) == 1
    assert "without a unit" in capsys.readouterr().err
    new = cells[cells.obs["line"] == "L1"].copy()
    new.obs["dose"] = pd.Categorical([f"{amount:g} nM" for amount in new.obs["dose"].astype(float)])
    new.write_h5ad(tmp_path / "new.h5ad")
    with pytest.raises(StateRagError, match="are in µM, and those of the run's data in no unit"):
        add(plain, tmp_path / "new.h5ad", progress=False)


def test_files_whose_doses_are_in_different_units_are_refused(folder, tmp_path):
    cells = ad.read_h5ad(folder / "cells.h5ad")
    cells.obs["dose"] = pd.Categorical([text.split()[0] for text in cells.obs["dose"].astype(str)])
    cells.write_h5ad(tmp_path / "plain.h5ad")
    with pytest.raises(StateRagError, match="mixes units.*bring all doses to one"):
        fit([folder / "cells.h5ad", tmp_path / "plain.h5ad"], tmp_path / "run", progress=False, **COLUMNS)
