import copy
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.errors import StateRagError
from state_rag.evidence.choices.design import Design
from state_rag.names.matching import OtherName
from state_rag.planning.design import design_run, design_table, hits_run
from state_rag.planning.design_files import plate_table, read_numbers


def measured(run, context):
    return {name for line, name in run.engine.responses.conditions if line == context}


def test_candidates_are_what_is_unmeasured_in_the_context_without_the_control(run):
    found = design_run(run, ["hepg2"], 100)
    chosen = {name for _, name in found.conditions}
    assert chosen == set(run.engine.bank.perturbations) - measured(run, "hepg2") - {"non-targeting"}
    assert found.exhausted
    assert found.targets == len(chosen)


def test_an_unknown_context_is_refused_with_close_spellings_and_a_new_one_is_taken(run):
    with pytest.raises(StateRagError, match="'hepg22' is neither.*hepg22 -> hepg2.*--new-context"):
        design_run(run, ["hepg22"], 2)
    assert design_run(run, ["liver"], 2, new_context=True).conditions[0][0] == "liver"


def test_the_likeliest_hits_come_first(run):
    found = hits_run(run, ["hepg2"], 5, threshold=0.0)
    assert (found.probability[:-1] >= found.probability[1:]).all()
    assert found.expected[-1] == pytest.approx(found.probability.sum())
    gene = run.engine.responses.genes[3]
    up, down = (hits_run(run, ["hepg2"], 50, threshold=0.0, signature={gene: sign}) for sign in (1.0, -1.0))
    assert up.conditions[0] == down.conditions[-1]
    named = dict(zip(up.conditions, up.effect, strict=True))
    place = up.conditions[0]
    assert named[place] == pytest.approx(run.engine.predict("hepg2", [place[1]]).mean[0, 3])
    with pytest.raises(StateRagError, match="none of the 1 genes"):
        hits_run(run, ["hepg2"], 5, signature={"no gene": 1.0})
    with pytest.raises(StateRagError, match="the threshold of hits is nan"):
        hits_run(run, ["hepg2"], 5, threshold=float("nan"))
    assert not {name for _, name in found.conditions} & measured(run, "hepg2")


def test_a_row_a_well_and_a_plate_a_batch():
    names = [("a", f"P{n}") for n in range(100)]
    table = plate_table(names, 94, controls=2)
    assert table["well"].iloc[0] == "A01"
    assert table["well"].iloc[12] == "B01"
    first = table[table["batch"] == 1]
    assert first["well"].iloc[-1] == "H12"
    assert first["perturbation"].tolist()[-2:] == ["control", "control"]
    assert (table.groupby("batch").size() == [96, 8]).all()
    assert plate_table(names, 100)["well"].iloc[24] == "B01"
    assert not table.duplicated(["batch", "well"]).any()
    with pytest.raises(StateRagError, match="96 or 384 wells"):
        plate_table(names, 384, controls=1)


def test_tables_of_costs_say_what_is_wrong_with_them(tmp_path):
    path = tmp_path / "cost.csv"
    path.write_text("gene,cost\nA,1\n")
    with pytest.raises(StateRagError, match="columns perturbation,cost; found gene, cost"):
        read_numbers(path, "--cost", "perturbation", "cost")
    path.write_text("perturbation,cost\nA,cheap\n")
    with pytest.raises(StateRagError, match="the cost of A is 'cheap'"):
        read_numbers(path, "--cost", "perturbation", "cost")
    path.write_text("perturbation,cost\nA,1\n,\n\nB,2\n,\n")
    assert read_numbers(path, "--cost", "perturbation", "cost") == {"A": 1.0, "B": 2.0}
    path.write_text("perturbation,cost\nA\n")
    with pytest.raises(StateRagError, match="the cost of A is '', not a number"):
        read_numbers(path, "--cost", "perturbation", "cost")
    path.write_text("perturbation,cost\nA,1\nA,2\n")
    with pytest.raises(StateRagError, match="A stands twice"):
        read_numbers(path, "--cost", "perturbation", "cost")


def test_the_command_writes_table_curve_plates_and_replay(folder, run, tmp_path):
    names = design_table(design_run(run, ["hepg2"], 3))["perturbation"].tolist()
    (tmp_path / "done.txt").write_text(f"{names[0]}\n\n")
    (tmp_path / "cost.csv").write_text(f"perturbation,cost\n{names[1]},1000\n")
    words = ["design", folder, "--context", "hepg2", "--budget", "3", "--exclude", tmp_path / "done.txt"]
    words += ["--cost", tmp_path / "cost.csv", "--evaluate", "--splits", "3", "-o", tmp_path / "out", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(
        [sys.executable, "-m", "state_rag.cli", *map(str, words)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "beat random" in result.stdout or "better than random" in result.stdout
    table = pd.read_csv(tmp_path / "out" / "design.csv")
    assert len(table) == 3
    assert not {names[0], names[1]} & set(table["perturbation"])
    assert table["variance_explained"].is_monotonic_increasing
    assert pd.read_csv(tmp_path / "out" / "plate.csv")["well"].tolist() == ["A01", "A02", "A03"]
    curve = list(pd.read_csv(tmp_path / "out" / "curve.csv"))
    assert curve[:3] == ["experiments", "designed", "random"]
    assert curve[3:] == ["expected_pearson_designed", "expected_pearson_random"]
    replayed = pd.read_csv(tmp_path / "out" / "replay.csv")
    assert set(replayed["chosen"]) == {"designed", "random", "most different", "largest elsewhere"}
    for name in ("design.png", "replay.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000


def test_options_of_the_other_aim_are_refused(folder, tmp_path, capsys):
    assert main(["design", str(folder), "--context", "hepg2", "--budget", "2", "--threshold", "1"]) == 1
    assert "add --aim hits" in capsys.readouterr().err
    main(["design", str(folder), "--context", "hepg2", "--budget", "2", "--aim", "hits", "-o", str(tmp_path / "hits")])
    assert "Expected hits" in capsys.readouterr().out


def test_a_predictor_gives_the_same_table(folder, run):
    table = sr.load(folder).design("hepg2", 3)
    pd.testing.assert_frame_equal(table, design_table(design_run(run, ["hepg2"], 3)))
    assert "probability" in sr.load(folder).design(["hepg2"], 3, aim="hits")
    with pytest.raises(StateRagError, match="unknown aim 'luck'"):
        sr.load(folder).design("hepg2", 3, aim="luck")
    for given in ({"costs": {"GENE1": 2.0}}, {"targets": ["GENE1"]}, {"replicates": True}):
        with pytest.raises(StateRagError, match="not for aim='hits'"):
            sr.load(folder).design("hepg2", 3, aim="hits", **given)
    for given in ({"threshold": 1.0}, {"signature": {"GENE1": 1.0}}):
        with pytest.raises(StateRagError, match="add aim='hits'"):
            sr.load(folder).design("hepg2", 3, **given)


def test_genes_of_a_signature_that_the_run_lacks_are_named(run, caplog):
    gene = run.engine.responses.genes[3]
    with_one = hits_run(run, ["hepg2"], 5, threshold=0.0, signature={gene: 1.0, "no gene": -1.0})
    alone = hits_run(run, ["hepg2"], 5, threshold=0.0, signature={gene: 1.0})
    assert with_one.conditions == alone.conditions
    assert "1 of 2 genes are not among the run's, and left out: no gene" in caplog.text
    with pytest.raises(StateRagError, match=f"none of the 1 genes .*{gene}x -> {gene}"):
        hits_run(run, ["hepg2"], 5, signature={f"{gene}x": 1.0})


def test_excluded_names_that_are_none_of_the_run_are_named_with_close_spellings(run, caplog):
    name = run.engine.bank.perturbations[0]
    design_run(run, ["hepg2"], 2, exclude=[f"{name}X", name])
    assert f"No perturbation of the run, though excluded: {name}X; close spellings: {name}X -> {name}" in caplog.text


def test_candidates_and_targets_that_cannot_be_taken_are_told(run, caplog):
    free = [name for _, name in design_run(run, ["hepg2"], 2).conditions]
    measured = next(name for context, name in run.engine.responses.conditions if context == "hepg2")
    for ask in (design_run, hits_run):
        caplog.clear()
        ask(run, ["hepg2"], 2, candidates=[*free, measured, free[0].lower()])
        assert f"No candidates, since measured in hepg2 already: {measured}." in caplog.text
        assert "Left out, known by no embedding and no response elsewhere: " in caplog.text
        assert f"close spellings: {free[0].lower()} -> {free[0]}" in caplog.text
    caplog.clear()
    design_run(run, ["hepg2"], 2, candidates=[*free, measured], targets=[*free, measured], replicates=True)
    assert "candidates" not in caplog.text
    assert f"No targets, since measured in hepg2 already: {measured}." in caplog.text
    with pytest.raises(StateRagError, match=f"no candidate is left of {measured}: each is excluded, measured"):
        design_run(run, ["hepg2"], 2, candidates=[measured])


def test_targets_of_several_lines_are_told_apart_where_all_experiments_are_in_one():
    told = Design(
        conditions=(("a", "P"),),
        gain=np.ones(1),
        cost=np.ones(1),
        remaining=np.array([2.0, 1.0]),
        random=np.array([2.0, 1.5]),
        prior=3.0,
        helps=(((("a", "P"), 0.6), (("b", "P"), 0.4)),),
        replicate=np.zeros(1, dtype=bool),
        targets=2,
        unknown=(),
        exhausted=False,
    )
    assert design_table(told)["helps"].tolist() == ["a:P(0.60)|b:P(0.40)"]


def test_two_names_of_one_perturbation_have_one_cost(run):
    name = run.engine.bank.perturbations[0]
    engine = copy.copy(run.engine)
    engine.bank = copy.copy(run.engine.bank)
    aliased = replace(run, engine=engine, names=[OtherName(name, f"OLD{name}", "alias")])
    with pytest.raises(StateRagError, match=f"{name} and OLD{name} are one perturbation, whose cost"):
        design_run(aliased, ["hepg2"], 2, costs={name: 2.0, f"OLD{name}": 3.0})
    with pytest.raises(StateRagError, match="costs have to name perturbations.*not list"):
        design_run(aliased, ["hepg2"], 2, costs=[1.0, 2.0])


def test_names_left_out_and_priced_may_be_other_names_of_the_same_gene(run):
    first, second = [name for _, name in design_run(run, ["hepg2"], 2).conditions]
    engine = copy.copy(run.engine)
    engine.bank = copy.copy(run.engine.bank)
    told = replace(run, engine=engine, names=[OtherName(name, f"OLD{name}", "alias") for name in (first, second)])
    for candidates in (None, [f"OLD{first}", second]):
        found = design_run(told, ["hepg2"], 100, candidates=candidates, exclude=[f"OLD{first}"])
        assert first not in {name for _, name in found.conditions}
        hits = hits_run(told, ["hepg2"], 100, candidates=candidates, exclude=[f"OLD{first}"], threshold=0.0)
        assert first not in {name for _, name in hits.conditions}
    priced = design_run(told, ["hepg2"], 100, candidates=[first, second], costs={f"OLD{second}": 50.0})
    cost = {name: value for (_, name), value in zip(priced.conditions, priced.cost, strict=True)}
    assert cost[second] == 50.0
