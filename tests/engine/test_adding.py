from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.engine.adding import add, add_to_folder
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.errors import StateRagError
from state_rag.names.matching import OtherName
from tests.engine.runs import QUICK


def new_cells(screen, names, folder, line="hepg2", label="liver", genes=None):
    """Write cells of some perturbations and controls of a line under another name of it; return the file."""
    cells = ad.read_h5ad(screen)
    keep = (cells.obs["cell_line"] == line) & cells.obs["gene"].isin([*names, "non-targeting"])
    cells = cells[keep.to_numpy()].copy()
    cells.obs["cell_line"] = label
    if genes is not None:
        cells = cells[:, genes].copy()
    path = folder / f"new_{label}.h5ad"
    cells.write_h5ad(path)
    return path


def test_new_cells_become_effects_of_their_own_controls(evidence_run, tmp_path):
    screen, folder = evidence_run
    run = read_run(folder)
    names = list(run.engine.responses.perturbation_names[:3])
    found = add(run, new_cells(screen, names, tmp_path), progress=False)
    assert {name for _, name in found.merged.added} == set(names)
    cells = ad.read_h5ad(tmp_path / "new_liver.h5ad")
    values = cells.obsm["X_hvg"]
    is_it, control = ((cells.obs["gene"] == name).to_numpy() for name in (names[0], "non-targeting"))
    row = found.run.engine.responses.conditions.index(("liver", names[0]))
    wanted = values[is_it].mean(0) - values[control].mean(0)
    np.testing.assert_allclose(found.run.engine.responses.effects[row], wanted, atol=1e-5)
    assert found.run.engine.predict("liver", ["unheard of"]).context == "liver"


def test_lines_without_cells_and_cells_without_labels_are_no_lines_without_controls(evidence_run, tmp_path):
    screen, folder = evidence_run
    run = read_run(folder)
    names = list(run.engine.responses.perturbation_names[:3])
    path = new_cells(screen, names, tmp_path)
    plain = add(run, path, progress=False).run.engine.responses
    cells = ad.read_h5ad(path)
    unlabelled = cells[:6].copy()
    unlabelled.obs_names = [f"unlabelled {number}" for number in range(6)]
    unlabelled.obs["gene"], unlabelled.obs["cell_line"] = None, ["kidney"] * 3 + [None] * 3
    both = ad.concat([cells, unlabelled], merge="same")
    both.obs["gene"] = pd.Categorical(both.obs["gene"], [*names, "non-targeting"])  # controls last
    both.obs["cell_line"] = pd.Categorical(both.obs["cell_line"], ["kidney", "brain", "liver"])
    both.write_h5ad(path)
    found = add(run, path, progress=False).run.engine.responses
    assert found.conditions == plain.conditions
    np.testing.assert_allclose(found.effects, plain.effects, atol=1e-6)


def test_several_files_are_added_in_their_order(evidence_run, tmp_path):
    screen, folder = evidence_run
    run = read_run(folder)
    names = list(run.engine.responses.perturbation_names[:4])
    first = new_cells(screen, names[:3], tmp_path)
    second = new_cells(screen, names[2:], tmp_path, label="kidney")
    third = tmp_path / "third.h5ad"
    cells = ad.read_h5ad(second)
    cells.obs["cell_line"] = "liver"
    cells.write_h5ad(third)
    found = add(run, [first, second, third], progress=False)
    wanted = {("liver", name) for name in names} | {("kidney", name) for name in names[2:]}
    assert set(found.merged.added) == wanted
    assert found.merged.averaged == ()  # of what the run knew
    assert found.run.config["added"] == [str(first), str(second), str(third)]
    one_by_one = add(add(add(run, first, progress=False).run, second, progress=False).run, third, progress=False)
    np.testing.assert_array_equal(found.run.engine.responses.effects, one_by_one.run.engine.responses.effects)
    assert found.expected.keys() <= {"liver", "kidney"}


def test_a_file_given_twice_is_refused(evidence_run, tmp_path):
    screen, folder = evidence_run
    path = new_cells(screen, ["GENE1"], tmp_path)
    with pytest.raises(StateRagError, match="given twice"):
        add(read_run(folder), [path, tmp_path / "." / path.name], progress=False)


def test_what_the_split_tests_is_refused(evidence_run, tmp_path):
    screen, folder = evidence_run
    run = read_run(folder)
    name = run.identity.split["fewshot"]["screen.hepg2"]["test"][0]
    with pytest.raises(StateRagError, match=f"validation or test in the run's split .{name} in hepg2"):
        add(run, new_cells(screen, [name], tmp_path, label="hepg2"), progress=False)


def test_a_tested_combination_is_refused_whatever_the_order_of_its_members(evidence_run, tmp_path):
    run = read_run(evidence_run[1])
    names, genes = run.engine.responses.perturbation_names, run.engine.responses.genes
    pair = "+".join(sorted(names[:2]))
    split = {**run.identity.split, "fewshot": {"screen.hepg2": {"test": [pair]}}}
    run = replace(run, identity=replace(run.identity, split=split))
    for name in (pair, "+".join(sorted(names[:2], reverse=True))):
        obs = pd.DataFrame({"context": ["hepg2"], "perturbation": [name], "n_cells": [9]}, index=["a"])
        table = ad.AnnData(run.engine.responses.effects[:1].copy(), obs=obs, var=pd.DataFrame(index=list(genes)))
        table.write_h5ad(tmp_path / "pair.h5ad")
        with pytest.raises(StateRagError, match="for validation or test"):
            add(run, tmp_path / "pair.h5ad", progress=False)


def test_what_the_split_tests_is_refused_under_another_name_too(evidence_run, tmp_path, caplog):
    screen, folder = evidence_run
    run = read_run(folder)
    tested = run.identity.split["fewshot"]["screen.hepg2"]["test"][0]
    run = replace(run, names=(OtherName(tested, "OLD NAME", "alias", "text"),))
    path = new_cells(screen, [tested], tmp_path, label="hepg2")
    cells = ad.read_h5ad(path)
    cells.obs["gene"] = cells.obs["gene"].astype(str).replace({tested: "OLD NAME"})
    cells.write_h5ad(path)
    caplog.set_level("INFO")
    with pytest.raises(StateRagError, match=f"validation or test in the run's split .{tested} in hepg2"):
        add(run, path, progress=False)
    assert f"other names of the run's perturbations: OLD NAME is {tested}" in caplog.text


def test_other_spellings_of_lines_and_perturbations_are_told(evidence_run, tmp_path, caplog):
    screen, folder = evidence_run
    run = read_run(folder)
    name = run.engine.responses.perturbation_names[0]
    path = new_cells(screen, [name], tmp_path, label="HEPG2")
    cells = ad.read_h5ad(path)
    cells.obs["gene"] = cells.obs["gene"].astype(str).replace({name: name.lower()})
    cells.write_h5ad(path)
    add(run, path, progress=False)
    assert "'HEPG2' taken for new cell lines" in caplog.text
    assert "close spellings: HEPG2 -> hepg2" in caplog.text
    assert f"known by no source: {name.lower()}; close spellings: {name.lower()} -> {name}" in caplog.text


def test_cells_without_controls_are_refused(evidence_run, tmp_path):
    screen, folder = evidence_run
    path = new_cells(screen, ["GENE1"], tmp_path)
    cells = ad.read_h5ad(screen)
    cells = cells[(cells.obs["cell_line"] == "k562") & (cells.obs["gene"] != "non-targeting")].copy()
    cells.write_h5ad(path)
    with pytest.raises(StateRagError, match="no control cells .*'non-targeting' in 'gene'.* in k562"):
        add(read_run(folder), path, progress=False)


def test_counts_for_a_run_of_log_values_are_refused(evidence_run, tmp_path):
    screen, folder = evidence_run
    run = read_run(folder)
    path = new_cells(screen, list(run.engine.responses.perturbation_names[:2]), tmp_path)
    cells = ad.read_h5ad(path)
    cells.obsm["X_hvg"] = np.round(np.expm1(cells.obsm["X_hvg"]))
    cells.write_h5ad(path)
    with pytest.raises(StateRagError, match="counts"):
        add(run, path, progress=False)


def test_without_the_runs_columns_the_error_names_them(evidence_run, tmp_path):
    screen, folder = evidence_run
    path = new_cells(screen, ["GENE1"], tmp_path)
    cells = ad.read_h5ad(path)
    cells.obs = cells.obs.rename(columns={"gene": "target"})
    cells.write_h5ad(path)
    with pytest.raises(StateRagError, match="no column 'gene', by which the run was fitted"):
        add(read_run(folder), path, progress=False)


def test_a_run_of_effects_takes_effects(evidence_run, tmp_path):
    screen, _ = evidence_run
    effects = sr.effects.from_anndata(ad.read_h5ad(screen), matrix="obsm/X_hvg")
    new = (effects.obs["context"] == "hepg2").to_numpy() & (np.arange(len(effects)) % 2 == 0)
    sr.effects.write(effects[~new].copy(), tmp_path / "known.h5ad")
    sr.effects.write(effects[new].copy(), tmp_path / "later.h5ad")
    run = fit(tmp_path / "known.h5ad", tmp_path / "run", settings=QUICK, progress=False)
    found = add(run, tmp_path / "later.h5ad", progress=False)
    assert len(found.merged.added) == new.sum()
    np.testing.assert_allclose(found.run.engine.responses.effects[len(run.engine.responses) :], effects.X[new], 1e-5)


def test_the_same_measurements_once_more_are_told(evidence_run, tmp_path, caplog):
    run = read_run(evidence_run[1])
    known = run.engine.responses
    obs = pd.DataFrame(known.conditions[:3], columns=["context", "perturbation"], index=["a", "b", "c"])
    obs["n_cells"] = 10
    again = ad.AnnData(known.effects[:3, ::-1].copy(), obs=obs, var=pd.DataFrame(index=list(known.genes)[::-1]))
    again.X[2] += 0.5
    again.write_h5ad(tmp_path / "again.h5ad")
    add(run, tmp_path / "again.h5ad", progress=False)
    assert "2 of 3 conditions have the very same effect as in the run" in caplog.text
    assert f"{known.conditions[0][1]} in {known.conditions[0][0]}" in caplog.text


def test_the_command_writes_a_run_that_every_command_takes(evidence_run, tmp_path, capsys):
    screen, folder = evidence_run
    names = list(read_run(folder).engine.responses.perturbation_names[:3])
    path = new_cells(screen, names, tmp_path)
    main(["evidence", "add", str(folder), str(path), "-o", str(tmp_path / "more"), "--quiet"])
    printed = capsys.readouterr().out
    assert "added      3 in liver; averaged with what was measured before: 0" in printed
    again = read_run(tmp_path / "more")
    assert again.config["added"] == [str(path)]
    assert again.config["name"] == "more"
    assert len(again.engine.responses) == len(read_run(folder).engine.responses) + 3
    with pytest.raises(StateRagError, match="holds an evidence run already"):
        add_to_folder(again, path, tmp_path / "more", progress=False)


def test_new_measurements_are_counted_in_and_not_written(evidence_run, tmp_path):
    screen, folder = evidence_run
    run = sr.load(folder)
    names = list(read_run(folder).engine.responses.perturbation_names[:3])
    more = run.add(new_cells(screen, names, tmp_path))
    assert not set(more.design("liver", 20)["perturbation"]) & set(names)
    assert set(names) <= set(run.design("liver", 20, new_context=True)["perturbation"])
