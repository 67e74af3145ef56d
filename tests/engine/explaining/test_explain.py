import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.engine.explaining.explain import contexts_of, explain, measured_effect
from state_rag.engine.explaining.files import file_name, write_explanation
from state_rag.engine.explaining.parts import gene_places, genes_table, parts_table
from state_rag.engine.explaining.words import rows
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.engine.predict import predict
from state_rag.errors import StateRagError
from tests.engine.runs import QUICK, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    screen, split, folder = make_run(tmp_path_factory.mktemp("run"))
    predict(read_run(folder), split, folder / "eval_last.ckpt", progress=False)
    return screen, split, folder


@pytest.fixture(scope="module")
def run(made):
    return read_run(made[2])


@pytest.fixture(scope="module")
def tested(made):
    (lists,) = read_split(made[1]).fewshot.values()
    return lists["test"][0]


def test_what_parts_add_to_genes_adds_up_to_the_prediction(run, tested):
    wanted = run.engine.predict("hepg2", [tested]).mean[0]
    found = explain(run, tested, "hepg2")
    table = parts_table(found, found.genes)
    assert np.allclose(table[list(found.genes)].sum(), wanted)
    assert table["share"].sum() == pytest.approx(1)
    assert table["part"].tolist() == ["context mean", *["condition"] * len(found.conditions), "correction"]
    assert (table["weight"].abs().iloc[1:-1].diff().dropna() <= 1e-12).all()
    by_gene = genes_table(found, at_most=9, conditions=3)
    assert np.allclose(by_gene.drop(columns="predicted").sum(axis=1), by_gene["predicted"])
    assert by_gene["predicted"].abs().is_monotonic_decreasing
    assert len(by_gene.columns) == 1 + 1 + 3 + 2


def test_the_weight_of_a_condition_is_how_many_times_its_effect_without_its_contexts_mean_it_adds(run, tested):
    found, responses = explain(run, tested, "hepg2"), run.engine.responses
    for place in range(len(found.conditions)):
        measured = responses.effects[responses.conditions.index(found.conditions[place])]
        assert np.allclose(found.effects[place], measured, atol=1e-6)
        # what it does to its own gene is no evidence about another one's perturbation
        beside = np.where(np.array(found.genes) == found.conditions[place][1], 0, measured)
        deviation = beside - found.priors[found.conditions[place][0]]
        times = found.contributions[place] @ deviation / (deviation @ deviation)
        assert found.weights[place] == pytest.approx(times, abs=1e-5)


def test_reasons_and_cells_are_those_of_the_data(run, tested):
    table = parts_table(explain(run, tested, "hepg2")).iloc[1:-1]
    same = table["perturbation"] == tested
    assert (table["why"] == "same perturbation elsewhere").equals(same)
    assert set(table["why"][~same]) <= {"text", "response similarity", "offsets others"}
    assert (table["cells"] == 12).all()
    assert np.allclose(table[["by_text", "by_responses", "by_same"]].sum(axis=1), 1)


def test_a_condition_that_was_measured_is_explained_without_its_own_response(run):
    found = explain(run, run.engine.responses.perturbations[0], run.engine.responses.contexts[0])
    assert (found.context, found.perturbation) not in found.conditions


def test_the_lines_of_the_table_add_up_and_name_the_others_together(run, tested):
    found = explain(run, tested, "hepg2")
    lines = rows(found, top=2)
    assert [line.what for line in lines[-3:]] == [
        f"{len(found.conditions) - 2} other conditions",
        "correction",
        "predicted effect",
    ]
    shares = [float(line.share.removesuffix(" %")) for line in lines]
    assert sum(shares[:-1]) == pytest.approx(100, abs=0.3)
    assert lines[-1].share == "100.0 %"
    assert len(rows(found, top=1000)) == len(found.conditions) + 3


def test_names_that_are_unknown_are_refused_with_close_spellings(run, tested):
    with pytest.raises(StateRagError, match=r"mean effect of hepg2.*close spellings: .* -> "):
        explain(run, f"{tested}X", "hepg2")
    with pytest.raises(StateRagError, match="'hepg22' is neither.*close spellings: hepg22 -> hepg2.*--new-context"):
        explain(run, tested, "hepg22")
    with pytest.raises(StateRagError, match="is the control"):
        explain(run, "non-targeting", "hepg2")
    with pytest.raises(StateRagError, match="gene 'no gene' is not among the 24"):
        parts_table(explain(run, tested, "hepg2"), ["no gene"])
    assert explain(run, tested, "liver", new_context=True).context == "liver"


def test_genes_may_be_ensembl_ids_with_their_version():
    assert gene_places(["TP53", "ENSG00000136997"], ["ENSG00000136997.17", "TP53", "ENSG00000136997"]) == [1, 0]


def test_a_line_held_out_as_a_whole_is_known_by_the_split(tmp_path):
    _, split, folder = make_run(tmp_path, few_shot=0.0)
    run = read_run(folder)
    assert contexts_of(run)[-1] == "hepg2"
    assert "hepg2" not in run.engine.responses.context_names
    assert explain(run, run.engine.responses.perturbations[0], "hepg2").conditions


def test_the_truth_is_read_from_the_run_or_from_its_predictions(made, run, tested):
    screen, _, folder = made
    cells = ad.read_h5ad(screen.h5ad)
    labels, lines = cells.obs["gene"].astype(str), cells.obs["cell_line"].astype(str)

    def effect(name, line):
        values = cells.obsm["X_hvg"]
        mean = {p: values[((labels == p) & (lines == line)).to_numpy()].mean(axis=0) for p in (name, "non-targeting")}
        return mean[name] - mean["non-targeting"]

    assert np.allclose(measured_effect(run, folder, tested, "hepg2"), effect(tested, "hepg2"), atol=1e-5)
    assert np.allclose(measured_effect(run, folder, tested, "k562"), effect(tested, "k562"), atol=1e-5)
    assert measured_effect(run, folder / "none", tested, "hepg2") is None


def test_the_command_prints_the_table_and_writes_every_part(made, run, tested, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # narrower, and words of the table are wrapped
    _, _, folder = made
    output = tmp_path / "out"
    words = ["explain", str(folder), "--perturbation", tested, "--context", "hepg2", "--top", "3"]
    assert main([*words, "-o", str(output)]) == 0
    said = capsys.readouterr().out
    for text in ("mean of hepg2", "other conditions", "correction", "100.0 %", "correlation of predicted and measured"):
        assert text in said
    table = pd.read_csv(output / f"hepg2_{tested}.csv")
    assert len(table) == len(explain(run, tested, "hepg2").conditions) + 2
    assert table["share"].sum() == pytest.approx(1)
    by_gene = pd.read_csv(output / f"hepg2_{tested}_genes.csv", index_col="gene")
    assert np.allclose(by_gene.drop(columns=["predicted", "measured"]).sum(axis=1), by_gene["predicted"])
    assert (output / f"hepg2_{tested}.png").stat().st_size > 1000
    assert main(words) == 0
    assert (folder / "explain" / f"hepg2_{tested}.csv").is_file()


def test_a_table_of_effects_is_explained_too(made, tmp_path):
    effects = sr.effects.from_anndata(ad.read_h5ad(made[0].h5ad), matrix="obsm/X_hvg")
    sr.effects.write(effects, tmp_path / "effects.h5ad")
    run = fit(tmp_path / "effects.h5ad", tmp_path / "run", settings=QUICK, progress=False)
    condition = run.engine.responses.conditions[0]
    found = explain(run, condition[1], condition[0])
    assert np.allclose(found.prediction, run.engine.predict(condition[0], [condition[1]]).mean[0])
    measured = measured_effect(run, tmp_path / "run", condition[1], condition[0])
    assert np.allclose(measured, run.engine.responses.effects[0])
    assert [path.suffix for path in write_explanation(found, tmp_path, measured=measured)] == [
        ".csv",
        ".csv",
        ".png",
        ".svg",
    ]


def test_other_runs_are_refused_and_files_have_safe_names(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {name: state}")
    assert main(["explain", str(tmp_path), "--perturbation", "A", "--context", "b"]) == 1
    long = file_name("line", "x" * 300)
    assert len(long) < 140
    assert long != file_name("line", "x" * 301)


def test_the_python_api_explains_a_run_from_its_folder(made, run, tested):
    predictor = sr.load(made[2])
    wanted = run.engine.predict("hepg2", [tested]).mean[0]
    table = predictor.explain(tested, "hepg2", genes="all")
    assert np.allclose(table[list(run.engine.responses.genes)].sum(), wanted)
    gene = run.engine.responses.genes[3]
    assert predictor.explain(tested, "hepg2", genes=gene)[gene].sum() == pytest.approx(wanted[3])
    assert np.allclose(predictor.explanation(tested, "hepg2").prediction, wanted)
    retrieved = predictor.retrieved(tested, "hepg2")
    assert retrieved["inclusion"].iloc[0] == pytest.approx(1.0)


def test_the_truth_is_read_by_position_where_the_genes_are_numbered_as_in_a_networks_files(
    made, run, tested, tmp_path, caplog
):
    _, _, folder = made
    place = tmp_path / "eval_last.ckpt"
    place.mkdir()
    real = ad.read_h5ad(folder / "eval_last.ckpt" / "adata_real.h5ad")
    real.var_names = [str(gene) for gene in range(real.n_vars)]
    real.write_h5ad(place / "adata_real.h5ad")
    wanted = measured_effect(run, folder, tested, "hepg2")
    assert np.array_equal(measured_effect(run, tmp_path, tested, "hepg2"), wanted)
    real[:, :5].copy().write_h5ad(place / "adata_real.h5ad")
    assert measured_effect(run, tmp_path, tested, "hepg2") is None
    assert "is not shown" in caplog.text
