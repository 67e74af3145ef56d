import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.effects.conditions import Columns, open_pair
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import NoEffect
from state_rag.evaluation.evaluate import Settings, evaluate_pair
from state_rag.evaluation.save import save_evaluation
from state_rag.metrics.registry import METRICS

GENES = 40
BOUNDED = {"mse", "rmse", "mae", "mse_pca50", "w1_pca50", "w2_pca50", "energy_pca50", "mmd_pca50"}


def screen(predictors=1.0, *, conditions=12, cells=20, seed=0, lines=("a", "b")):
    """Return real and predicted cells; a predictor's error is its distance to 1."""
    rng = np.random.default_rng(seed)
    labels, real, predicted = [], [], []
    for line in lines:
        base = rng.uniform(2, 4, GENES)
        for number in range(conditions + 1):
            effect = rng.normal(size=GENES) * 0.7 * (number < conditions)
            noise = rng.normal(size=GENES) * 0.7 * (number < conditions)
            guess = predictors * effect + (1 - predictors) * noise
            name = f"P{number}" if number < conditions else "non-targeting"
            labels += [(name, line)] * cells
            real.append(base + effect + 0.3 * rng.normal(size=(cells, GENES)))
            predicted.append(base + guess + 0.3 * rng.normal(size=(cells, GENES)))
    obs = pd.DataFrame(labels, columns=["gene", "cell_line"])
    obs.index = obs.index.astype(str)
    return [ad.AnnData(np.concatenate(part).clip(0).astype(np.float32), obs=obs.copy()) for part in (real, predicted)]


def evaluated(real, predicted, **options):
    pair = open_pair(predicted, real, Columns())
    return evaluate_pair(pair, progress=False, settings=Settings(components=20), **options)


def test_real_against_itself_has_no_distance_and_full_correlation():
    real, _ = screen()
    table = evaluated(real, real).model()
    assert len(table) == 24
    for metric in METRICS:
        wanted = 0.0 if metric.name in BOUNDED else 1.0
        assert table[metric.name].to_numpy() == pytest.approx(wanted, abs=1e-6), metric.name


def test_a_planted_ranking_of_four_predictors_comes_out_right_on_every_metric():
    quality = [1.0, 0.7, 0.4, 0.0]
    means = [evaluated(*screen(value)).model().mean(numeric_only=True) for value in quality]
    for metric in METRICS:
        values = [mean[metric.name] for mean in means]
        assert values == sorted(values, reverse=metric.higher_is_better), metric.name


def test_shuffling_cells_within_conditions_changes_nothing():
    real, predicted = screen(0.6)
    rng = np.random.default_rng(3)

    def shuffled(adata):
        order = np.concatenate(
            [rng.permutation(rows) for rows in adata.obs.reset_index().groupby(["gene", "cell_line"]).indices.values()]
        )
        return adata[order].copy()

    before = evaluated(real, predicted).model()
    after = evaluated(shuffled(real), shuffled(predicted)).model()
    for metric in METRICS:
        np.testing.assert_allclose(after[metric.name], before[metric.name], rtol=1e-5, atol=1e-7, err_msg=metric.name)


class Fixed:
    """A baseline that knows nothing but what every condition does."""

    def __init__(self, effect):
        self.change = effect

    def effect(self, perturbation, cell_line):
        return self.change

    def knows(self, perturbation, cell_line):
        return True


def columns_of(table, predictor):
    return table[table["predictor"] == predictor].reset_index(drop=True).drop(columns="predictor")


@pytest.mark.parametrize("max_cells", [1000, 14])
def test_shuffling_the_rows_of_both_files_changes_no_column_of_any_predictor(max_cells):
    real, predicted = screen(0.6)
    baselines = {"no effect": NoEffect(GENES), "something": Fixed(np.linspace(-0.5, 0.5, GENES))}
    settings = Settings(components=20, max_cells=max_cells)

    def table(*sides):
        pair = open_pair(sides[1], sides[0], Columns())
        return evaluate_pair(pair, baselines=baselines, settings=settings, progress=False).table

    rng = np.random.default_rng(5)
    before = table(real, predicted)
    after = table(*(adata[rng.permutation(adata.n_obs)].copy() for adata in (real, predicted)))
    assert set(before["predictor"]) == {"model", *baselines}
    pd.testing.assert_frame_equal(after, before, rtol=1e-9, atol=1e-9)


def test_baselines_move_the_same_control_cells_whatever_other_baselines_there_are():
    real, predicted = screen(0.6, lines=("a",))
    none, few = NoEffect(GENES), Fixed(np.full(GENES, 0.1))
    alone = evaluated(real, predicted, baselines={"no effect": none}).table
    beside = evaluated(real, predicted, baselines={"few": few, "no effect": none, "again": none}).table
    pd.testing.assert_frame_equal(columns_of(beside, "no effect"), columns_of(alone, "no effect"))
    pd.testing.assert_frame_equal(columns_of(beside, "again"), columns_of(alone, "no effect"))


def test_batching_of_conditions_changes_nothing():
    real, predicted = screen(0.6)
    pair = open_pair(predicted, real, Columns())
    one, many = (evaluate_pair(pair, settings=Settings(batch=size), progress=False).model() for size in (1, 7))
    pd.testing.assert_frame_equal(one, many)


def test_files_and_objects_give_the_same_numbers_for_dense_and_sparse_storage(tmp_path):
    from scipy import sparse

    real, predicted = screen(0.6, lines=("a",))
    expected = evaluated(real, predicted).model()
    for storage in (np.asarray, sparse.csr_matrix):
        for name, adata in (("real", real), ("predicted", predicted)):
            ad.AnnData(storage(adata.X), obs=adata.obs).write_h5ad(tmp_path / f"{name}.h5ad")
        found = evaluated(tmp_path / "real.h5ad", tmp_path / "predicted.h5ad").model()
        pd.testing.assert_frame_equal(found, expected)


def test_no_effect_scores_chance_and_is_the_models_equal_if_the_model_predicts_controls():
    real, _ = screen(lines=("a",))
    evaluation = evaluated(real, real, baselines={"no effect": NoEffect(GENES)})
    row = evaluation.table[evaluation.table["predictor"] == "no effect"].mean(numeric_only=True)
    assert row["pearson_delta"] == 0
    assert row["direction_deg"] == 0.5
    assert row["discrimination"] == pytest.approx(0.5, abs=0.05)
    assert row["energy_pca50"] > 0.5


def test_own_control_cancels_a_constant_error_and_centring_cancels_a_shared_effect():
    real, predicted = screen(1.0, lines=("a",))
    shift = np.random.default_rng(9).normal(size=GENES).astype(np.float32)
    shifted = ad.AnnData(predicted.X + np.abs(shift) * 2, obs=predicted.obs)
    before, after = evaluated(real, predicted).model(), evaluated(real, shifted).model()
    np.testing.assert_allclose(after["pearson_delta_own"], before["pearson_delta_own"], atol=1e-4)
    assert after["pearson_delta"].mean() < before["pearson_delta"].mean() - 0.05
    treated = (real.obs["gene"] != "non-targeting").to_numpy()[:, None]
    both = [ad.AnnData(adata.X + 3 * treated * np.abs(shift), obs=adata.obs) for adata in (real, predicted)]
    wrong = ad.AnnData(np.repeat(real.X[-20:], 13, axis=0) + 3 * treated * np.abs(shift), obs=real.obs)
    centred = [evaluated(both[0], guess).model() for guess in (both[1], wrong)]
    assert centred[1]["pearson_delta"].mean() > 0.8
    assert abs(centred[1]["pearson_delta_centred"].mean()) < 0.3
    np.testing.assert_allclose(centred[0]["pearson_delta_centred"], before["pearson_delta_centred"], atol=1e-3)


def test_nan_in_a_prediction_makes_that_conditions_metrics_nan_and_is_counted():
    real, predicted = screen(0.6, lines=("a",))
    predicted.X[3, 5] = np.nan
    evaluation = evaluated(real, predicted)
    bad = evaluation.model().set_index("perturbation").loc["P0"]
    assert bad[[metric.name for metric in METRICS]].isna().all()
    assert evaluation.model().drop(index=0)["mse"].notna().all()
    assert evaluation.notes["conditions_with_nan_in_predicted_cells"] == 1
    assert evaluation.notes["nan_per_metric"]["mse"] == 1


def test_differential_genes_do_not_depend_on_the_prediction():
    real, predicted = screen(0.6, lines=("a",))
    expected = evaluated(real, predicted).model()["n_degs"]
    predicted.X[3, 5] = np.nan
    evaluation = evaluated(real, predicted)
    assert evaluation.model()["n_degs"].tolist() == expected.tolist()
    assert expected[0] > 0
    assert evaluation.notes["conditions_without_degs"] == 0


def test_nan_is_counted_for_every_baseline_too():
    real, predicted = screen(0.6, lines=("a",))
    real.X[3, 5] = np.nan
    broken = Fixed(np.full(GENES, np.nan))
    notes = evaluated(real, predicted, baselines={"no effect": NoEffect(GENES), "broken": broken}).notes
    assert notes["nan_per_metric"]["mse"] == 1
    assert notes["nan_per_metric_of_baselines"]["no effect"]["mse"] == 1
    assert notes["nan_per_metric_of_baselines"]["broken"]["mse"] == 12


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_infinity_in_a_prediction_is_nan_without_a_warning_for_each_operation():
    real, predicted = screen(0.6, lines=("a",))
    predicted.X[3, 5], predicted.X[25, 7] = np.inf, -np.inf
    evaluation = evaluated(real, predicted)
    assert set(evaluation.notes["nan_per_metric"].values()) == {2}


def test_nan_in_controls_is_an_error_that_names_file_and_line():
    real, predicted = screen(lines=("a",))
    real.X[-1, 0] = np.inf
    with pytest.raises(StateRagError, match="real AnnData: 1 genes have NaN or infinity in the control cells of a"):
        evaluated(real, predicted)


def test_a_single_cell_leaves_profiles_but_no_distances_or_degs():
    real, predicted = screen(lines=("a",))
    keep = np.ones(real.n_obs, dtype=bool)
    keep[1:20] = False
    evaluation = evaluated(real[keep].copy(), predicted[keep].copy())
    lone = evaluation.model().set_index("perturbation").loc["P0"]
    assert lone["n_degs"] == 0
    assert lone[["mse", "pearson_delta", "discrimination"]].notna().all()
    assert lone[["energy_pca50", "w2_pca50", "pearson_deg"]].isna().all()
    assert evaluation.notes["conditions_with_one_cell"] == 1
    assert evaluation.notes["conditions_without_degs"] == 1


def test_pseudobulk_with_one_row_per_condition_is_evaluated_on_profiles_and_named(caplog):
    real, predicted = screen(0.8, cells=1)
    evaluation = evaluated(real, predicted)
    table = evaluation.model()
    assert table["pearson_delta"].notna().all()
    assert table["energy_pca50"].isna().all()
    assert evaluation.notes["nan_per_metric"]["energy_pca50"] == 24
    assert evaluation.notes["pseudobulk"].endswith("PCA is fitted on these profiles (13 in a, 13 in b)")
    assert [record.levelname for record in caplog.records if "pseudobulk" in record.message] == ["WARNING"]


def test_rows_that_predict_marks_as_pseudobulks_are_recognised_and_cells_are_not():
    real, predicted = screen(0.8, cells=2, lines=("a",))
    assert "pseudobulk" not in evaluated(real, predicted).notes
    for adata in (real, predicted):
        adata.obs["_pseudobulk_n_cells"] = 30
    assert "pseudobulk" in evaluated(real, predicted).notes


def test_notes_say_where_pca_has_another_size_than_its_label():
    real, predicted = screen(0.8)
    assert evaluated(real, predicted).notes["pca_of_other_size_than_the_labels_say"] == "20 in a, 20 in b"


def test_predicted_genes_that_the_real_file_lacks_are_counted_and_change_nothing(caplog):
    real, predicted = screen(0.6, lines=("a",))
    names = [f"G{number}" for number in range(GENES)]
    real.var_names = predicted.var_names = names
    more = ad.concat([predicted, ad.AnnData(predicted.X[:, :7] + 1, var=pd.DataFrame(index=[*"abcdefg"]))], axis=1)
    more.obs = predicted.obs
    evaluation = evaluated(real, more)
    pd.testing.assert_frame_equal(evaluation.table, evaluated(real, predicted).table)
    assert evaluation.notes["predicted_genes_left_out"] == 7
    assert "7 of its 47 genes are not in real AnnData and were left out: a, b, c, d, e, ... (7 in all)" in caplog.text


def test_negative_values_are_counted_not_dropped():
    real, predicted = screen(lines=("a",))
    predicted.X[0, :3] = -1
    evaluation = evaluated(real, predicted)
    assert evaluation.notes["negative_values_in_predicted_cells"] == 3
    assert evaluation.model()["mse"].notna().all()


def test_constant_genes_are_no_degs_and_do_no_harm():
    real, predicted = screen(0.7, lines=("a",))
    for adata in (real, predicted):
        adata.X[:, :5] = 2.0
    evaluation = evaluated(real, predicted)
    assert not evaluation.profiles["a"].degs[:][:, :5].any()
    assert evaluation.model()[[metric.name for metric in METRICS]].notna().all().all()


def test_large_conditions_are_thinned_for_distances_only_and_counted():
    real, predicted = screen(0.7, lines=("a",), conditions=3, cells=50)
    pair = open_pair(predicted, real, Columns())
    full, thin = (evaluate_pair(pair, settings=Settings(max_cells=limit), progress=False) for limit in (1000, 30))
    assert thin.notes["clouds_thinned"] == 6
    pd.testing.assert_series_equal(thin.model()["mse"], full.model()["mse"])
    assert (thin.model()["energy_pca50"] != full.model()["energy_pca50"]).all()


def peak_of(folder, conditions):
    """Return the peak memory in bytes of an evaluation from files, results written."""
    real, predicted = screen(conditions=conditions, lines=("a",), cells=12)
    for adata, name in ((real, "real"), (predicted, "pred")):
        adata.write_h5ad(folder / f"{name}{conditions}.h5ad")
    del real, predicted, adata
    paths = folder / f"pred{conditions}.h5ad", folder / f"real{conditions}.h5ad"
    tracemalloc.start()
    evaluation = evaluate_pair(open_pair(*paths, Columns()), progress=False)
    save_evaluation(evaluation, folder / f"results{conditions}", Columns())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_conditions(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "GENES", 300)
    monkeypatch.setattr("state_rag.metrics.row_blocks.BLOCK_ROWS", 32)
    monkeypatch.setattr("state_rag.metrics.effects.DISCRIMINATION_BLOCK", 32)
    monkeypatch.setattr("state_rag.evaluation.evaluate.READ_ROWS", 256)
    monkeypatch.setattr("state_rag.metrics.pca.BLOCK_VALUES", 256 * 300)
    monkeypatch.setattr("state_rag.evaluation.save.TABLE_VALUES", 2**12)
    evaluate_pair(open_pair(*reversed(screen(conditions=8, lines=("a",))), Columns()), progress=False)
    few, many = peak_of(tmp_path, 80), peak_of(tmp_path, 320)
    one_profile_of_each = 240 * 300 * 4
    assert many - few < 2 * one_profile_of_each, (few, many)
