import anndata
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.errors import StateRagError
from state_rag.planning.search import search_run, search_table, verdict


def response(run, row=0):
    responses = run.engine.responses
    context, perturbation = responses.conditions[row]
    return context, perturbation, dict(zip(responses.genes, responses.effects[row].tolist(), strict=True))


def test_a_measured_response_is_found_by_its_own_name_and_marked(run):
    context, perturbation, signature = response(run)
    found = search_run(run, context, signature, top=5)
    table = search_table(found)
    assert table["perturbation"][0] == perturbation
    assert table["known_by"][0] == table["trust_grade"][0] == "measured"
    assert "non-targeting" not in found.perturbations
    assert len(table) == 5
    assert (table["score"].diff()[1:] <= 0).all()
    assert search_run(run, context, signature, reverse=True).perturbations[-1] == perturbation


def test_an_unknown_context_is_refused_with_close_spellings(run):
    with pytest.raises(StateRagError, match="hepg22 -> hepg2.*--new-context"):
        search_run(run, "hepg22", response(run)[2])
    with pytest.raises(StateRagError, match=r"a context is a name, such as '\w+', not \['hepg2'\]"):
        search_run(run, ["hepg2"], response(run)[2])
    assert search_run(run, "liver", response(run)[2], new_context=True).context == "liver"


def test_it_is_said_when_nothing_fits(run):
    rng = np.random.default_rng(1)
    genes = run.engine.responses.genes
    found = [search_run(run, "hepg2", dict(zip(genes, rng.normal(size=len(genes)), strict=True))) for _ in range(4)]
    assert any(verdict(one).startswith("NOTHING FITS") for one in found)
    context, _, signature = response(run)
    told = verdict(search_run(run, context, signature))
    assert told.startswith("NOTHING FITS") or "fit better than luck" in told


def test_a_narrow_terminal_has_whole_words_and_is_told_where_the_rest_stands(
    folder, run, tmp_path, capsys, monkeypatch
):
    context, perturbation, signature = response(run)
    pd.Series(signature).rename_axis("gene").rename("value").to_csv(tmp_path / "wanted.csv")
    words = ["search", str(folder), "--context", context, "--target", str(tmp_path / "wanted.csv"), "--top", "4"]
    shown = {}
    for width in ("80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        assert main([*words, "-o", str(tmp_path / "out")]) == 0
        shown[width] = capsys.readouterr().out
        table = [line for line in shown[width].splitlines() if line.startswith("│")]
        assert any(f" {perturbation} " in line for line in table)
    assert len([line for line in shown["80"].splitlines() if line.startswith("│")]) <= 2 * 4
    assert "the evidence behind it: " in shown["80"]
    assert "why" in shown["200"]
    assert "the evidence behind it: " not in shown["200"]


def test_the_command_writes_tables_and_a_picture(folder, run, tmp_path, capsys):
    context, perturbation, signature = response(run)
    pd.Series(signature).rename_axis("gene").rename("value").to_csv(tmp_path / "wanted.csv")
    words = ["search", str(folder), "--context", context, "--target", str(tmp_path / "wanted.csv"), "--top", "4"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert perturbation in said
    assert "Target: a" in said
    table = pd.read_csv(tmp_path / "out" / "search.csv")
    assert table["perturbation"][0] == perturbation
    assert len(table) == 4
    every = pd.read_csv(tmp_path / "out" / "candidates.csv")
    assert set(every["perturbation"]) == set(run.engine.bank.perturbations) - {"non-targeting"}
    effects = pd.read_csv(tmp_path / "out" / "effects.csv", index_col="gene")
    np.testing.assert_allclose(effects["target"], effects[perturbation], rtol=1e-4)
    assert (tmp_path / "out" / "search.png").stat().st_size > 1000


def test_an_h5ad_row_and_words_are_targets_too(folder, run, tmp_path, capsys):
    context, perturbation, signature = response(run)
    rows = anndata.AnnData(
        np.stack([np.zeros(len(signature)), list(signature.values())]),
        obs=pd.DataFrame(index=["nothing", "seen"]),
        var=pd.DataFrame(index=list(signature)),
    )
    rows.write_h5ad(tmp_path / "seen.h5ad")
    words = ["search", str(folder), "--context", context, "-o", str(tmp_path / "out"), "--target"]
    assert main([*words, str(tmp_path / "seen.h5ad")]) == 1
    assert "name it with --row" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "seen.h5ad"), "--row", "seen"]) == 0
    assert pd.read_csv(tmp_path / "out" / "search.csv")["perturbation"][0] == perturbation
    first, second, *_ = run.engine.responses.genes
    assert main([*words, f"{first}:+,{second}:-,UNHEARD:+"]) == 0
    assert "a list of 2 genes" in capsys.readouterr().out
    assert "mean_effect" in pd.read_csv(tmp_path / "out" / "search.csv")


def test_a_predictor_gives_the_same_table(folder, run):
    context, _, signature = response(run)
    expected = search_table(search_run(run, context, signature, top=3))
    predictor = sr.load(folder)
    pd.testing.assert_frame_equal(predictor.search(context, signature, top=3), expected)
    pd.testing.assert_frame_equal(predictor.search(context, pd.Series(signature), top=3), expected)
    gene = run.engine.responses.genes[0]
    pd.testing.assert_frame_equal(
        predictor.search(context, f"{gene}:-", top=3), predictor.search(context, {gene: 1.0}, top=3, reverse=True)
    )
