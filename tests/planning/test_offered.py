from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.engine.folder import EvidenceRun
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.names.matching import OtherName
from state_rag.names.treatments import name_in
from state_rag.planning import offered as module
from state_rag.planning.design import design_run, hits_run
from state_rag.planning.offered import offered, own_names
from state_rag.planning.search import search_run
from tests.evidence.pretend_screen import QUICK
from tests.evidence.pretend_treatments import curves, opposites, responses


@pytest.fixture(scope="module")
def names(run):
    return sorted(name for name in run.engine.bank.perturbations if name != "non-targeting")[:6]


def wanted(run):
    return dict(zip(run.engine.responses.genes, run.engine.responses.effects[0].tolist(), strict=True))


def test_a_pair_is_spelled_by_its_members_as_the_run_has_them(run, names):
    first, second = names[:2]
    aliased = replace(run, names=(OtherName(first, "OLD NAME", "a test", "text"),))
    assert aliased.engine.bank.other_names == {"OLD NAME": first}
    expected = "+".join(sorted([first, second]))
    try:
        written = [f"{second}+{first}", f"{second}+OLD NAME", f"{first}+{second}+ctrl", names[2]]
        assert offered(aliased, written) == [expected, names[2]]
        assert own_names(aliased, written[:1], "excluded") == [expected]
    finally:
        run.engine.bank.other_names = {}


def test_pairs_are_those_of_what_is_offered_and_too_many_are_refused(run, names, monkeypatch):
    assert len(offered(run, names, pairs=True)) == 15
    every = len(offered(run))
    assert len(offered(run, pairs=True)) == every * (every - 1) // 2
    monkeypatch.setattr(module, "MOST_PAIRS", 12)
    with pytest.raises(StateRagError, match=r"6 perturbations make 15 pairs, and 12 .* those of 5.* --candidates"):
        offered(run, names, pairs=True)
    with pytest.raises(StateRagError, match="no pair can be made"):
        offered(run, names[:1], pairs=True)


def test_two_treatments_of_one_name_are_no_pair():
    effects, embeddings = opposites(perturbations=3)
    engine = Evidence(replace(QUICK, calibrating=0)).fit(responses(effects), embeddings)
    found = offered(EvidenceRun(engine, {}, None), pairs=True)
    # of 3 names in 2 modes each
    assert len(found) == 15 - 3
    assert all(len(set(name_in(pair).split("+"))) == 2 for pair in found)
    target = dict(zip(engine.responses.genes, effects["a", "P0:CRISPRa"] + effects["a", "P1:CRISPRa"], strict=True))
    best = search_run(EvidenceRun(engine, {}, None), "a", target, pairs=True, top=3)
    assert "P0:CRISPRa+P1:CRISPRa" in best.perturbations[:2]


def test_a_dose_that_was_not_measured_is_a_candidate():
    measured, truth = curves(drugs=6)
    engine = Evidence(replace(QUICK, calibrating=0)).fit(responses(measured))
    run = EvidenceRun(engine, {}, None)
    names = ["D0:dose=0.1", "D2:dose=0.2", "D1:dose=0.1+D0:dose=0.2"]
    target = dict(zip(engine.responses.genes, truth["a", "D0:dose=0.1"], strict=True))
    found = search_run(run, "a", target, candidates=names)
    assert set(found.perturbations) == {"D0:dose=0.1", "D2:dose=0.2", "D0:dose=0.2+D1:dose=0.1"}
    chosen = design_run(run, ["a"], 3, candidates=names, targets=["D0:dose=1", "D1:dose=1+D0:dose=1"])
    assert {name for _, name in chosen.conditions} == set(found.perturbations)
    likely = hits_run(run, ["a"], 3, candidates=names, threshold=0.1)
    assert {name for _, name in likely.conditions} == set(found.perturbations)


def test_the_commands_and_the_api_choose_among_pairs_alike(folder, run, names, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("\n".join([*names[:4], f"{names[5]}+{names[4]}"]))
    pd.Series(wanted(run)).rename_axis("gene").rename("value").to_csv(tmp_path / "wanted.csv")
    base = [str(folder), "--context", "hepg2", "--candidates", str(tmp_path / "list.txt")]
    assert main(["search", *base, "--target", str(tmp_path / "wanted.csv"), "-o", str(tmp_path / "mixed")]) == 0
    mixed = pd.read_csv(tmp_path / "mixed" / "search.csv")
    assert set(mixed["perturbation"]) == {*names[:4], f"{names[4]}+{names[5]}"}
    assert np.isfinite(mixed["score"]).all()
    words = ["search", *base, "--pairs", "--target", str(tmp_path / "wanted.csv"), "-o", str(tmp_path / "pairs")]
    assert main(words) == 0
    written = pd.read_csv(tmp_path / "pairs" / "search.csv")
    assert len(written) == 6
    found = sr.load(folder).search("hepg2", wanted(run), candidates=names[:4], pairs=True)
    assert found["perturbation"].tolist() == written["perturbation"].tolist()
    capsys.readouterr()
    assert main(["design", *base, "--pairs", "--budget", "2", "-o", str(tmp_path / "next")]) == 0
    assert "variance of 6 targets (combinations)" in " ".join(capsys.readouterr().out.split())
    design = pd.read_csv(tmp_path / "next" / "design.csv")
    again = sr.load(folder).design("hepg2", 2, candidates=names[:4], pairs=True)
    assert design["perturbation"].tolist() == again["perturbation"].tolist()
    assert "probability" in sr.load(folder).design("hepg2", 2, candidates=names[:4], pairs=True, aim="hits")
