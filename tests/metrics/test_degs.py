import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from state_rag.metrics.degs import WelchMoments, changes, differential_genes, moments_of


def screen(seed=0, n=23, controls=71, genes=80):
    rng = np.random.default_rng(seed)
    control = rng.gamma(2, 0.5, size=(controls, genes)).astype(np.float32)
    treated = (rng.gamma(2, 0.5, size=(n, genes)) * rng.uniform(0.5, 1.5, size=genes)).astype(np.float32)
    return treated, control


def test_p_values_equal_scipys_welch_test():
    treated, control = screen()
    found = differential_genes(moments_of(treated), moments_of(control))
    expected = stats.ttest_ind(treated.astype(float), control.astype(float), equal_var=False)
    np.testing.assert_allclose(found.p, expected.pvalue, rtol=1e-6)
    log2fc = (treated.mean(axis=0) - control.mean(axis=0)) / np.log(2)
    np.testing.assert_allclose(found.log2fc, log2fc, atol=1e-5)
    np.testing.assert_array_equal(found.mask, (expected.pvalue < 0.1) & (np.abs(log2fc) >= 0.05))


def test_p_values_equal_scanpys_t_test():
    sc = pytest.importorskip("scanpy")
    import anndata as ad
    import pandas as pd

    treated, control = screen(3)
    labels = pd.Categorical(["treated"] * len(treated) + ["control"] * len(control))
    adata = ad.AnnData(np.concatenate((treated, control)), obs=pd.DataFrame({"group": labels}))
    adata.obs_names = [str(number) for number in range(adata.n_obs)]
    sc.tl.rank_genes_groups(adata, "group", groups=["treated"], reference="control", method="t-test")
    table = sc.get.rank_genes_groups_df(adata, "treated").set_index("names").loc[adata.var_names]
    found = differential_genes(moments_of(treated), moments_of(control))
    np.testing.assert_allclose(found.p, table["pvals"], rtol=1e-4)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 10_000))
def test_moments_do_not_depend_on_how_cells_arrive(sizes, seed):
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(50, 1e-2, size=(size, 3)) for size in sizes]
    whole = np.concatenate(blocks)
    moments = WelchMoments(3)
    for block in blocks:
        moments.add(block)
    assert moments.n == len(whole)
    if len(whole) > 1:
        np.testing.assert_allclose(moments.mean, whole.mean(axis=0))
        np.testing.assert_allclose(moments.variance, whole.var(axis=0, ddof=1), rtol=1e-6)


def test_a_constant_gene_is_not_differential_and_two_different_constants_are():
    treated, control = screen()
    treated[:, 0], control[:, 0] = 1.0, 1.0
    treated[:, 1], control[:, 1] = 2.0, 1.0
    found = differential_genes(moments_of(treated), moments_of(control))
    assert (found.p[0], found.p[1]) == (1.0, 0.0)
    assert found.mask[:2].tolist() == [False, True]


@pytest.mark.parametrize("level", [0.1, 0.7, 1 / 3, 5.3])
def test_a_gene_of_one_value_is_not_changed_by_how_many_cells_were_added_up(level):
    for cells in range(3, 200, 7):
        treated, control = np.full((cells, 4), level), np.full((2 * cells + 1, 4), level)
        in_blocks = moments_of([treated[:3], *(treated[start : start + 5] for start in range(3, cells, 5))])
        for moments in (moments_of(treated), in_blocks):
            assert (differential_genes(moments, moments_of(control)).p == 1).all()
            assert not changes(moments, moments_of(control)).any()


def test_one_cell_has_no_differential_genes():
    treated, control = screen(n=1)
    found = differential_genes(moments_of(treated), moments_of(control))
    assert np.isnan(found.p).all()
    assert not found.mask.any()


def test_thresholds_and_the_fold_change_of_gge_can_be_chosen():
    treated, control = screen()
    loose = differential_genes(moments_of(treated), moments_of(control), p_below=0.5, log2fc_from=0)
    strict = differential_genes(moments_of(treated), moments_of(control), p_below=0.01, log2fc_from=0.5)
    assert strict.mask.sum() < loose.mask.sum()
    theirs = differential_genes(moments_of(treated), moments_of(control), fold_change="gge")
    expected = np.log2(treated.mean(axis=0) + 1) - np.log2(control.mean(axis=0) + 1)
    np.testing.assert_allclose(theirs.log2fc, expected, atol=1e-5)
    with pytest.raises(ValueError, match="fold_change"):
        differential_genes(moments_of(treated), moments_of(control), fold_change="scanpy")


def test_changes_are_welchs_test_corrected_by_hand():
    treated, control = screen(1)
    treated[:, :6] += 2
    found = changes(moments_of(treated), moments_of(control))
    p = stats.ttest_ind(treated.astype(float), control.astype(float), equal_var=False).pvalue
    order = np.argsort(p)
    passed = np.flatnonzero(p[order] <= 0.05 * np.arange(1, 81) / 80)
    expected = np.zeros(80)
    expected[order[: passed[-1] + 1]] = 1
    np.testing.assert_array_equal(found, expected * np.sign(treated.mean(axis=0) - control.mean(axis=0)))


def test_one_cell_does_not_tell_what_changes_and_equal_cells_change_nothing():
    treated, control = screen()
    assert np.isnan(changes(moments_of(treated[:1]), moments_of(control))).all()
    assert np.isnan(changes(moments_of(treated), moments_of(control[:1]))).all()
    assert not changes(moments_of(np.ones((5, 3))), moments_of(np.ones((9, 3)))).any()


def test_moments_come_from_means_and_deviations():
    treated, _ = screen()
    found = WelchMoments.of(len(treated), treated.mean(axis=0), treated.std(axis=0, ddof=1))
    np.testing.assert_allclose(found.variance, moments_of(treated).variance, rtol=1e-5)
