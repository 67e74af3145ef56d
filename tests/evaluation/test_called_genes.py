"""Called genes against the truth of made-up cells, by plain loops."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from state_rag.effects.conditions import Columns, open_pair
from state_rag.effects.line_profiles import LineProfiles
from state_rag.engine.called import CALLS, FREQUENCY, LAYER
from state_rag.evaluation.called_genes import CONDITIONS, LISTS, PRECISION, in_words, write_called_genes

NAMES, GENES = ["P", "Q", "R"], [f"G{number}" for number in range(30)]


@pytest.fixture
def made(tmp_path):
    """Write real and predicted cells of three conditions, R of which changes nothing, and return what there is."""
    rng = np.random.default_rng(0)
    effects = {"P": np.repeat([2.0, 0.0], [6, 24]), "Q": np.repeat([0.0, -2.0], [24, 6]), "R": np.zeros(30)}
    labels = np.repeat(["ctrl", *NAMES], [60, 25, 25, 25])
    real = rng.normal(3, 1, size=(135, 30)).astype(np.float32)
    predicted = real[rng.permutation(135)].copy()
    probability = {name: np.clip(np.abs(effects[name]) / 2.5 + rng.normal(0, 0.3, 30), 0, 1) for name in NAMES}
    for name in NAMES:
        real[labels == name] += effects[name].astype(np.float32)
        predicted[labels == name] += (effects[name] + rng.normal(0, 0.7, 30)).astype(np.float32)
    obs = pd.DataFrame({"gene": labels, "cell_line": "k562"}, index=[str(number) for number in range(135)])
    var = pd.DataFrame(index=GENES)
    layer = np.zeros((135, 30), dtype=np.float32)
    for name in NAMES:
        layer[labels == name] = probability[name]
    # the predicted genes stand in another order
    turned = ad.AnnData(predicted, obs=obs, var=var, layers={LAYER: layer})
    turned.varm[FREQUENCY] = pd.DataFrame({"k562": np.linspace(0, 0.5, 30)}, index=GENES)
    turned[:, GENES[::-1]].copy().write_h5ad(tmp_path / "adata_pred.h5ad")
    ad.AnnData(real, obs=obs, var=var).write_h5ad(tmp_path / "adata_real.h5ad")
    rows = [
        (name, gene, 0.04 if probability[name][number] > 0.9 else 0.08)
        for name in NAMES
        for number, gene in enumerate(GENES)
        if probability[name][number] > 0.6
    ]
    table = pd.DataFrame(rows, columns=["perturbation", "gene", "fdr"])
    table = table.assign(context="k562", direction="up", effect=1.0, probability=0.5, calibration_holds=True)
    table.to_csv(tmp_path / CALLS, index=False)
    pair = open_pair(tmp_path / "adata_pred.h5ad", tmp_path / "adata_real.h5ad", Columns("gene", "cell_line", "ctrl"))
    means = {side: {name: cells[labels == name].mean(0) for name in ("ctrl", *NAMES)} for side, cells in
             (("real", real), ("predicted", predicted))}  # fmt: skip
    profiles = LineProfiles(
        NAMES,
        np.stack([means["real"][name] for name in NAMES]),
        np.stack([means["predicted"][name] for name in NAMES]),
        np.zeros((3, 30), dtype=bool),
        means["real"]["ctrl"],
        means["predicted"]["ctrl"],
    )
    return tmp_path, pair, {"k562": profiles}, real, labels, probability, table


def truth_of(real, labels, name):
    own, control = (real[labels == one].astype(float) for one in (name, "ctrl"))
    return stats.false_discovery_control(stats.ttest_ind(own, control, equal_var=False).pvalue) <= 0.05


def test_precision_is_that_of_each_condition_with_changes(made):
    folder, pair, profiles, real, labels, probability, _ = made
    assert write_called_genes(pair, profiles, folder, folder / "gge")
    conditions = pd.read_csv(folder / "gge" / CONDITIONS).set_index("perturbation")
    ours = {}
    for number, name in enumerate(NAMES):
        truth = truth_of(real, labels, name)
        assert conditions.loc[name, "changed"] == truth.sum()
        if not truth.any():
            assert np.isnan(conditions.loc[name, "probability"])
            continue
        ours[name] = average_precision_score(truth, probability[name])
        assert conditions.loc[name, "probability"] == pytest.approx(ours[name])
        size = np.abs(profiles["k562"].predicted[number] - profiles["k562"].own_control)
        found = conditions.loc[name, "size of the predicted effect"]
        assert found == pytest.approx(average_precision_score(truth, size))
        found = conditions.loc[name, "gene frequency"]
        assert found == pytest.approx(average_precision_score(truth, np.linspace(0, 0.5, 30)))
    assert set(ours) >= {"P", "Q"}
    table = pd.read_csv(folder / "gge" / PRECISION)
    assert table["average_precision"][0] == pytest.approx(np.mean(list(ours.values())))
    whole = np.concatenate([truth_of(real, labels, name) for name in NAMES])
    expected = average_precision_score(whole, np.concatenate([probability[name] for name in NAMES]))
    assert table["all_together"][0] == pytest.approx(expected, abs=1e-6)


def test_lists_are_judged_by_the_share_that_does_not_change(made):
    folder, pair, profiles, real, labels, _, table = made
    write_called_genes(pair, profiles, folder, folder / "gge")
    lists = pd.read_csv(folder / "gge" / LISTS).set_index("fdr")
    truth = {name: dict(zip(GENES, truth_of(real, labels, name), strict=True)) for name in NAMES}
    for level in (0.05, 0.1):
        own = table[table["fdr"] <= level]
        false = [not truth[row.perturbation][row.gene] for row in own.itertuples()]
        assert lists.loc[level, "called"] == len(own)
        assert lists.loc[level, "false"] == pytest.approx(np.mean(false))
        changed = sum(sum(of_one.values()) for of_one in truth.values())
        assert lists.loc[level, "recall"] == pytest.approx((len(own) - sum(false)) / changed)


def test_predictions_that_say_nothing_write_nothing_and_remove_what_was(made):
    folder, pair, profiles, *_ = made
    write_called_genes(pair, profiles, folder, folder / "gge")
    (folder / CALLS).unlink()
    assert not write_called_genes(pair, profiles, folder, folder / "gge")
    assert not any((folder / "gge" / name).exists() for name in (CONDITIONS, LISTS, PRECISION))


def test_the_sentence_says_when_nothing_is_called(made):
    folder, pair, profiles, *_ = made
    write_called_genes(pair, profiles, folder, folder / "gge")
    precision, lists = (pd.read_csv(folder / "gge" / name) for name in (PRECISION, LISTS))
    assert "called genes do not change." in in_words(precision, lists)
    lists.loc[0, ["called", "false"]] = [0, np.nan]
    assert "At a false discovery rate of 0.05: none called." in in_words(precision, lists)
