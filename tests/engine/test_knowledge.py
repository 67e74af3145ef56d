import re
import sys
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml

from state_rag.cells.question import Names, Wanted
from state_rag.cli import main
from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.splits import write_split
from state_rag.embeddings.find import DEFAULT_PATHS
from state_rag.embeddings.readers import read_embeddings
from state_rag.engine import fitting
from state_rag.engine.ask import ask
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.engine.further import knowing
from state_rag.engine.knowledge import SOURCES, knowledge_of, similarity_words, similarity_words_of
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import with_members
from state_rag.names.matching import OtherName
from state_rag.names.tables import read_symbols
from tests.engine import runs
from tests.engine.runs import SIZES

QUICK = replace(runs.QUICK, calibrating=0)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return simulate_screen(tmp_path_factory.mktemp("screen"), seed=2, **SIZES)


@pytest.fixture(scope="module")
def split(screen):
    return write_split(screen.h5ad, "hepg2", output=screen.h5ad.with_name("split.toml")).path


@pytest.fixture(scope="module")
def names(screen):
    genes = ad.read_h5ad(screen.h5ad).obs["gene"]
    return sorted(set(genes) - {"non-targeting"})


@pytest.fixture(scope="module")
def gmt(screen, names):
    path = screen.h5ad.with_name("sets.gmt")
    path.write_text("".join(f"s{n}\t\t{a}\t{b}\n" for n, (a, b) in enumerate(zip(names[:8], names[1:9], strict=True))))
    return path


def test_combinations_are_not_asked_of_a_source_that_knows_their_members(tmp_path, caplog):
    caplog.set_level("INFO", "state_rag")
    asked = with_members(["A", "B", "C", "A+B", "A+C", "D+E", "B+ctrl"])
    np.savez(tmp_path / "singles.npz", **{name: np.ones(3) for name in "ABD"})
    about = knowledge_of(tmp_path / "singles.npz", None, asked).about["text"]
    assert (about["known"], about["asked"]) == (3, 5)  # A to E
    assert "knows 3 of 5 perturbations" in caplog.text
    np.savez(tmp_path / "pairs.npz", **{name: np.ones(3) for name in ("A", "B", "A+C")})
    about = knowledge_of(tmp_path / "pairs.npz", None, asked).about["text"]
    assert (about["known"], about["asked"]) == (3, 6)  # and A+C, of which it has a vector


def test_a_run_says_what_its_sources_are_and_how_much_each_counts(
    screen, split, names, gmt, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.setattr("state_rag.evidence.training.Settings", lambda seed: QUICK)
    monkeypatch.setitem(sys.modules, "tables", None)  # what the package's files are read with
    caplog.set_level("INFO", "state_rag")
    main(
        ["evidence", "fit", str(split), "-o", str(tmp_path / "run"), "--embeddings", str(screen.embeddings), "--quiet"]
        + ["--source", f"sets={gmt}"]
    )
    assert f"Source sets: gene sets, 8 sets of 2 to 300 genes; knows 9 of {len(names)} perturbations." in caplog.text
    said = capsys.readouterr().out
    assert caplog.text.count("AARS is not AARS1") == 1
    assert re.search("few-shot   similar perturbations are told by .*responses", said)
    table = pd.read_csv(tmp_path / "run" / SOURCES)
    assert set(table["source"]) == {"text", "sets", "responses"}
    assert table.groupby("use")["weight"].sum().to_numpy() == pytest.approx(1, abs=1e-4)
    (row,) = table[(table["source"] == "sets") & (table["use"] == "few-shot")].itertuples()
    assert (row.kind, row.known, row.asked) == ("gene sets", 9, len(names))
    about = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["sources"]["sets"]
    assert about["file"] == str(gmt)
    run = read_run(tmp_path / "run")
    assert run.engine.similarity.names == ("text", "sets", "responses")
    main(["explain", str(tmp_path / "run"), "--perturbation", names[0], "--context", "hepg2"])
    assert capsys.readouterr().out.count("Similar perturbations are told by: ") == 1


def test_one_source_is_what_embeddings_are(screen, split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = fit(split, tmp_path / "a", embeddings=screen.embeddings, settings=QUICK, progress=False).engine
    other = fit(split, tmp_path / "b", sources={"mine": screen.embeddings}, settings=QUICK, progress=False).engine
    asked = first.responses.perturbation_names
    assert np.array_equal(first.predict("hepg2", asked).mean, other.predict("hepg2", asked).mean)
    assert other.similarity.names == ("mine", "responses")


def test_a_name_is_given_to_one_thing(screen, names, gmt):
    for taken, said in (("text", "that of the embeddings"), ("responses", "taken by measured responses")):
        with pytest.raises(StateRagError, match=rf"--source {taken}: the name is {said}.*choose another"):
            knowledge_of(screen.embeddings, {taken: gmt}, names)


def test_without_embeddings_a_source_is_enough_and_nothing_is_warned_of(names, gmt, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_RAG_GENEPT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not any((tmp_path / place).exists() for place in DEFAULT_PATHS)
    found = knowledge_of(None, {"sets": gmt}, names)
    assert not caplog.text
    assert (found.embeddings, list(found.tables)) == (None, ["sets"])
    assert knowledge_of(None, {}, names).tables == {}
    assert "Give some with --embeddings, or other knowledge with --source" in caplog.text


def test_a_source_of_other_names_is_refused_with_examples(gmt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StateRagError, match=r"sets\.gmt \(gene sets\) knows none of the 1 perturbations.*have ENSG1"):
        knowledge_of(None, {"sets": gmt}, ["ENSG1"])


@pytest.fixture(scope="module")
def renamed(screen, split, names, tmp_path_factory):
    """A run whose gene sets call three perturbations by their new symbols, one of them unclear."""
    folder = tmp_path_factory.mktemp("renamed")
    lines = [f"NEW{n}\t{name}\tOTHER{n}" for n, name in enumerate(names[:3])]
    lines += [f"ELSE\t{names[2]}\t", "LATER1\tLATER\t"]
    (folder / "hgnc.tsv").write_text("\n".join(["symbol\tprev_symbol\talias_symbol", *lines]))
    sets = [("NEW0", "NEW1", "LATER1"), ("NEW1", "NEW2", names[3]), (names[3], names[4])]
    (folder / "sets.gmt").write_text("".join(f"s{n}\t\t" + "\t".join(own) + "\n" for n, own in enumerate(sets)))
    fit(
        split,
        folder / "run",
        embeddings=screen.embeddings,
        sources={"sets": folder / "sets.gmt"},
        names=folder / "hgnc.tsv",
        settings=QUICK,
        progress=False,
    )
    return folder


def test_perturbations_are_found_under_other_names_and_the_run_says_which(renamed, names):
    table = pd.read_csv(renamed / "run" / "names.csv", keep_default_na=False)
    used = table[table["used_for"] == "sets"]
    assert used[["perturbation", "other_name", "kind"]].to_numpy().tolist() == [
        [names[0], "NEW0", "approved"],
        [names[1], "NEW1", "approved"],
    ]
    unclear = table[table["kind"] == "ambiguous"]
    assert unclear[["perturbation", "other_name"]].to_numpy().tolist() == [[names[2], "NEW2 ELSE"]]
    about = yaml.safe_load((renamed / "run" / "config.yaml").read_text())["sources"]
    assert about["sets"]["known"] == 4
    assert about["sets"]["renamed"] == f"2 by another name: {names[0]} = NEW0, {names[1]} = NEW1"
    assert about["text"]["renamed"] == ""


def test_ambiguous_names_are_told(renamed, screen, names, caplog):
    symbols = read_symbols(renamed / "hgnc.tsv")
    knowledge_of(None, {"sets": renamed / "sets.gmt"}, names, symbols)
    assert f"may be several genes are taken as they are written: {names[2]} (NEW2 or ELSE)." in caplog.text


def test_a_run_can_be_asked_by_other_names(renamed, screen, names, caplog, capsys):
    run = read_run(renamed / "run")
    own, other, unclear = run.engine.predict("hepg2", [names[0], "OTHER0", "NEW2"]).mean
    assert np.array_equal(own, other)
    assert not np.array_equal(own, unclear)
    wanted = Wanted(perturbations=["NEW1", names[1]], contexts=["hepg2"])
    with caplog.at_level("INFO"):
        cells = ask(run, ad.read_h5ad(screen.h5ad), Names("gene", "cell_line", "non-targeting", "gem_group"), wanted)
    assert f"NEW1 is {names[1]} in this run" in caplog.text
    means = [np.asarray(cells[cells.obs["gene"] == name].X).mean(0) for name in ("NEW1", names[1])]
    np.testing.assert_allclose(*means, rtol=1e-3, atol=1e-3)
    main(["explain", str(renamed / "run"), "--perturbation", "NEW0", "--context", "hepg2"])
    assert f"{names[0]} in hepg2: predicted from" in capsys.readouterr().out


def test_perturbations_of_no_screen_are_found_under_other_names_too(renamed):
    run = read_run(renamed / "run")
    assert run.engine.bank.number_of("LATER") < 0
    found = knowing(run, ["LATER"])
    assert found.engine.predict("hepg2", ["LATER"]).sources == (("sets",),)
    assert OtherName("LATER", "LATER1", "approved", "sets") in found.names


def test_the_engine_below_a_network_finds_embeddings_under_other_names(
    renamed, screen, split, names, tmp_path, monkeypatch
):
    table = read_embeddings(screen.embeddings)
    vectors = dict(zip(table.names, table.vectors, strict=True))
    vectors["NEW0"] = vectors.pop(names[0])
    np.savez(tmp_path / "renamed.npz", **vectors)
    taken = {}
    monkeypatch.setattr(fitting, "read_symbols", lambda: read_symbols(renamed / "hgnc.tsv"))
    monkeypatch.setattr(Evidence, "fit", lambda self, responses, tables, **_: taken.update(tables) or self)
    columns = {
        "pert_col": "gene",
        "cell_type_key": "cell_line",
        "batch_col": "gem_group",
        "control_pert": "non-targeting",
    }
    data = {"toml_config_path": str(split), **columns, "embed_key": "X_hvg", "output_space": "gene"}
    fitting.fit_to_split(*fitting._checked(split, data), data, tmp_path / "renamed.npz", progress=False)
    known, rows = taken["text"]
    np.testing.assert_array_equal(rows[list(known).index(names[0])], vectors["NEW0"])


def test_an_explanation_says_what_tells_similarity_in_its_own_kind_of_question():
    def engine(uses):
        told = Responses(np.eye(6), ["a", "a", "b", "b", "c", "c"], ["P1", "P2"] * 3)
        return Evidence(Settings(steps=0, episodes=0, calibrating=0)).fit(
            told, {"go": (["P1", "P2", "P3"], np.eye(3))}, uses=uses
        )

    every, one = engine(None), engine(["few-shot"])
    told = similarity_words_of(every, "a", "P1")
    assert told.startswith("Similar perturbations are told by: ")
    assert "(learned for a few-shot line, where " in told
    assert "(learned for an unseen perturbation, where " in similarity_words_of(every, "a", "P3")
    assert "(learned for a zero-shot line, where " in similarity_words_of(every, "new", "P1")
    assert "(borrowed, since the run was not fitted for a zero-shot line, " in similarity_words_of(one, "new", "P1")
    assert "(few-shot line)" in similarity_words(one)
    assert "zero-shot" not in similarity_words(one)
    assert "(few-shot line); " in similarity_words(every)
