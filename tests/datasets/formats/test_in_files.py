"""Files as others publish them: recognised, read by every command without a flag, and never guessed at."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.datasets.formats.in_files import names_by_format, told_format
from state_rag.datasets.preparing.prepare import prepare
from state_rag.datasets.screen_table import read_screen_table
from state_rag.errors import StateRagError
from state_rag.h5ad import open_h5ad
from state_rag.names.combinations import parts_of
from tests.datasets.test_commands import call

GENES = ["AARS", "KARS", "WARS", "RPL3", "SGK1", "PLK4"]
TAHOE = [f"[('{drug}', {dose}, 'uM')]" for drug in ("Afatinib", "Bortezomib", "Sunitinib") for dose in (0.5, 5.0)]


def crossed(labels, lines, cells=6):
    """Return the label and the line of every cell."""
    return [label for label in labels for _ in lines for _ in range(cells)], [
        line for _ in labels for line in lines for _ in range(cells)
    ]


def obs_of(name):
    """Return `obs` as the files of a format have it."""
    if name == "GEARS":
        labels, lines = crossed(
            ["ctrl", *(f"{gene}+ctrl" for gene in GENES), "ctrl+AARS", "KARS+AARS"], ["K562", "RPE1"]
        )
        return {
            "condition": labels,
            "cell_type": lines,
            "dose_val": ["1+1"] * len(labels),
            "control": [0] * len(labels),
        }
    if name == "scPerturb":
        labels, lines = crossed(["control", *GENES, "KARS_AARS", "HLA_A"], ["K562", "RPE1"])
        counts = [{"control": 0, "KARS_AARS": 2}.get(label, 1) for label in labels]
        kinds = ["lymphoblasts" if line == "K562" else "epithelial" for line in lines]
        return {"perturbation": labels, "nperts": counts, "cell_line": lines, "celltype": kinds, "gene": labels}
    if name == "pertpy":
        labels, _ = crossed(["control", *GENES, "AARS+KARS"], ["K562"], cells=12)
        return {"perturbation_name": labels, "gemgroup": [1 + (row % 2) for row in range(len(labels))]}
    if name == "perturbench":
        labels, lines = crossed(["control", *GENES, "AARS+KARS"], ["k562", "a172"])
        kinds = ["CRISPRa" if line == "k562" else "CRISPRi" for line in lines]
        return {"condition": labels, "perturbation": labels, "cell_type": lines, "perturbation_type": kinds}
    if name == "Tahoe-100M":
        labels, lines = crossed(["[('DMSO_TF', 0.0, 'uM')]", *TAHOE], ["A549", "HOP62"])
        ids = [{"A549": "CVCL_0023", "HOP62": "CVCL_1285"}[line] for line in lines]
        wells = [f"smp_{row % 7}" for row in range(len(labels))]
        plates = [f"plate{1 + row % 2}" for row in range(len(labels))]
        drugs = [label.split("'")[1] for label in labels]
        return {
            "drugname_drugconc": labels, "drug": drugs, "cell_name": lines, "cell_line": ids, "sample": wells,
            "plate": plates,
        }  # fmt: skip
    labels, lines = crossed(["Vehicle", "Ellagic acid", "UNC1999", "Givinostat", "Alvespimycin"], ["A549", "MCF7"], 12)
    doses = [0.0 if label == "Vehicle" else (10.0, 100.0, 1000.0)[row % 3] for row, label in enumerate(labels)]
    return {"product_name": labels, "cell_type": lines, "dose": doses, "time_point": [24.0] * len(labels)}


def write(path, obs):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(obs, index=[f"c{row}" for row in range(len(next(iter(obs.values()))))])
    genes = pd.DataFrame(index=[*GENES, *(f"G{number}" for number in range(24))])
    means = 1 + rng.gamma(2, 2, size=(frame.iloc[:, 0].nunique(), len(genes)))
    counts = rng.poisson(means[pd.factorize(frame.iloc[:, 0])[0]]).astype(np.float32)
    for column in frame.select_dtypes(["object", "string"]):
        frame[column] = frame[column].astype("category")
    anndata.AnnData(counts, obs=frame, var=genes).write_h5ad(path)
    return path


TAKEN = {
    "GEARS": ("condition", "cell_type", "ctrl"),
    "scPerturb": ("perturbation", "cell_line", "control"),
    "pertpy": ("perturbation_name", "cell_line", "control"),
    "perturbench": ("condition", "cell_type", "control"),
    "Tahoe-100M": ("drugname_drugconc", "cell_name", "[('DMSO_TF', 0.0, 'uM')]"),
    "sci-Plex": ("product_name", "cell_type", "Vehicle"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_goes_through_every_reading_command_without_a_flag(tmp_path, capsys, name):
    perturbation, line, control = TAKEN[name]
    ready = prepare(write(tmp_path / "cells.h5ad", obs_of(name)), tmp_path / "ready.h5ad", n_hvgs=20)
    assert (ready.pert_col, ready.cell_type_col, ready.control) == TAKEN[name]
    table = read_screen_table(ready.path)
    assert (table.pert_col, table.cell_type_col, table.control) == TAKEN[name]
    call("data", "split", ready.path, "--held-out-perturbations", "0.2", "-o", tmp_path / "split.toml")
    capsys.readouterr()
    call("data", "check", tmp_path / "split.toml")
    shown = capsys.readouterr().out
    said = f"{name} (sure): perturbation in {perturbation!r}, control {control!r}"
    assert told_format(tmp_path / "cells.h5ad")[0] == said
    assert (f"format  {said}" in shown) == (name != "GEARS")  # with `A+ctrl` rewritten to `A` it is like any other
    rewritten = {"perturbation": perturbation, "context": line, "control": control} if name == "GEARS" else {}
    effects = sr.effects.read(tmp_path / "split.toml", progress=False, **rewritten)
    assert control not in set(effects.obs["perturbation"])
    assert effects.n_obs >= 3


@pytest.mark.parametrize("name", [name for name in TAKEN if name != "pertpy"])  # that has no cell line
def test_effects_are_read_from_files_and_memory_without_names(tmp_path, name):
    perturbation, line, control = TAKEN[name]
    obs = obs_of(name)
    path = write(tmp_path / "cells.h5ad", obs)
    if name == "GEARS":  # which writes one perturbation in two ways here
        with pytest.raises(StateRagError, match=r"AARS\+ctrl / ctrl\+AARS.*data prepare"):
            sr.effects.read(path, progress=False)
        obs["condition"] = [label.replace("ctrl+AARS", "AARS+ctrl") for label in obs["condition"]]
        path = write(tmp_path / "once.h5ad", obs)
    cells = anndata.read_h5ad(path)
    wanted = sr.effects.from_anndata(cells, perturbation=perturbation, context=line, control=control)
    for found in (sr.effects.from_anndata(cells), sr.effects.read(path, progress=False)):
        assert found.obs.equals(wanted.obs)
        np.testing.assert_allclose(found.X, wanted.X, atol=1e-6)
    if name == "scPerturb":
        both = cells.copy()
        both.obs["drugname_drugconc"] = both.obs["gene"]
        with pytest.raises(StateRagError, match="obs could be that of Tahoe-100M .* scPerturb .* Name the column"):
            sr.effects.from_anndata(both)
        cells.obs["gene"] = cells.obs["gene"].cat.rename_categories({"control": "non-targeting"})
        assert "HLA_A" in set(sr.effects.from_anndata(cells).obs["perturbation"])  # `gene`, as ever


def test_pairs_and_added_controls_are_rewritten_and_other_underscores_stay(tmp_path):
    for name, wanted in (
        ("GEARS", {"ctrl", *GENES, "AARS+KARS"}),
        ("scPerturb", {"control", *GENES, "AARS+KARS", "HLA_A"}),
    ):
        path = write(tmp_path / f"{name}.h5ad", obs_of(name))
        (told,) = [line for line in told_format(path) if "labels" in line]
        assert re.search(r"^\d labels are written otherwise here \(.*: `state-rag data prepare`$", told)
        ready = prepare(path, n_hvgs=20)
        assert any(change.startswith("rewrote ") for change in ready.changes)
        labels = anndata.read_h5ad(ready.path).obs[ready.pert_col]
        assert set(labels.cat.categories) == wanted
        assert parts_of("AARS+KARS") == ("AARS", "KARS")
        assert not [line for line in told_format(ready.path) if "labels" in line]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Tahoe-100M", "has dose too; for the evidence engine: --dose-col drugname_drugconc"),
        ("sci-Plex", "has dose too; for the evidence engine: --dose-col dose"),  # one time for all tells nothing
        ("perturbench", "has mode too; for the evidence engine: --mode-col perturbation_type"),
    ],
)
def test_modes_and_doses_are_told_with_the_option_that_takes_them(tmp_path, name, said):
    assert said in told_format(write(tmp_path / "cells.h5ad", obs_of(name)))


def test_the_evidence_engine_is_fitted_on_drugs_and_doses_without_other_flags(tmp_path, monkeypatch):
    from state_rag.engine.fitting import fit
    from tests.engine.runs import QUICK

    ready = prepare(write(tmp_path / "cells.h5ad", obs_of("Tahoe-100M")), n_hvgs=20)
    call("data", "split", ready.path, "--held-out-perturbations", "0.2", "-o", tmp_path / "split.toml")
    monkeypatch.setattr("state_rag.embeddings.find.DEFAULT_PATHS", ())
    run = fit(tmp_path / "split.toml", tmp_path / "run", dose_col="drugname_drugconc", settings=QUICK, progress=False)
    assert {name.partition(":")[0] for name in run.engine.responses.perturbation_names} <= {
        "Afatinib",
        "Bortezomib",
        "Sunitinib",
    }
    assert run.data["batch_col"] == "plate"  # a well has one drug


def test_what_the_user_names_counts_before_the_format(tmp_path):
    path = write(tmp_path / "cells.h5ad", obs_of("Tahoe-100M"))
    with open_h5ad(path) as file:
        assert names_by_format(file, "drug", None, None, "DMSO_TF") == ("drug", None, None, "DMSO_TF")
        found = names_by_format(file, cell_type_col="cell_line", batch_col="sample")
        assert found[:3] == ("drugname_drugconc", "cell_line", "sample")
        assert names_by_format(file, "drugname_drugconc").line == "cell_name"
    assert told_format(path, "drug") == []


def test_two_formats_that_mean_different_columns_are_refused(tmp_path):
    obs = obs_of("sci-Plex")
    both = {**obs, "perturbation": ["control", "A"] * (len(obs["dose"]) // 2), "nperts": [1] * len(obs["dose"])}
    path = write(tmp_path / "cells.h5ad", both)
    said = (
        r"could be sci-Plex \(perturbation in 'product_name'\) or scPerturb \(in 'perturbation'\), which differ. Choose"
    )
    with pytest.raises(StateRagError, match=said):
        read_screen_table(path)
    assert read_screen_table(path, pert_col="product_name").control == "Vehicle"
    assert read_screen_table(path, pert_col="perturbation").control == "control"
    alike = {**both, "perturbation": ["control" if name == "Vehicle" else name for name in obs["product_name"]]}
    assert read_screen_table(write(tmp_path / "alike.h5ad", alike)).pert_col == "product_name"


def test_cell_lines_and_cell_types_that_differ_are_reported_as_ever(tmp_path):
    obs = obs_of("scPerturb")
    obs["celltype"] = ["a", "b"] * (len(obs["gene"]) // 2)
    with pytest.raises(StateRagError, match="'cell_line' and 'celltype' could both be the cell line, and they differ"):
        read_screen_table(write(tmp_path / "cells.h5ad", obs))


@pytest.mark.parametrize("name", ["Tahoe-100M", "sci-Plex", "scPerturb"])
def test_quickstart_takes_the_same(tmp_path, name):
    from state_rag.datasets.quickstart.plan import plan

    found = plan(write(tmp_path / "cells.h5ad", obs_of(name)))
    assert (found.perturbation.value, found.line.value, found.control.value) == TAKEN[name]
    assert found.perturbation.why.startswith(f"as {name} has it")
