import numpy as np
import pytest

from state_rag.experiments.finished import read_sweep
from state_rag.experiments.k_plot import k_plot
from state_rag.experiments.tables import table2
from state_rag.metrics.registry import BY_NAME
from tests.experiments.made_up import make_job


@pytest.fixture
def table(tmp_path):
    for seed in (0, 1):
        make_job(tmp_path, "none", "k562", seed)
        for k in (2, 5, 32):
            make_job(tmp_path, "differentiable", "k562", seed, k)
            make_job(tmp_path, "vanilla", "k562", seed, k, status="waiting" if k == 5 else "finished")
    return table2(read_sweep(tmp_path), metric="mse")


def test_lines_pass_through_the_tables_means_and_bars_are_its_deviations(table):
    ax = k_plot(table.rows, BY_NAME["mse"], "title").axes[0]
    bars = {bar.get_label(): bar for bar in ax.containers}
    rows = table.rows[table.rows["method"] == "PT-RAG"].sort_values("K")
    line, _, (segments,) = bars["PT-RAG"].lines
    assert line.get_xdata().tolist() == [2, 5, 32]
    np.testing.assert_allclose(line.get_ydata(), rows["mean"])
    spans = [np.ptp(segment[:, 1]) for segment in segments.get_segments()]
    np.testing.assert_allclose(spans, 2 * rows["sd_over_seeds"])


def test_a_missing_k_breaks_the_line_and_is_named(table):
    ax = k_plot(table.rows, BY_NAME["mse"], "title").axes[0]
    label = next(bar.get_label() for bar in ax.containers if "vanilla" in bar.get_label())
    line = next(bar.lines[0] for bar in ax.containers if bar.get_label() == label)
    assert np.isnan(line.get_ydata()[1])
    assert "missing: K = 5" in label


def test_the_axis_is_logarithmic_to_base_2_and_says_what_is_better(table):
    ax = k_plot(table.rows, BY_NAME["mse"], "title").axes[0]
    assert ax.get_xscale() == "log"
    assert ax.xaxis.get_transform().base == 2
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "5", "32"]
    assert "lower is better" in ax.get_ylabel()


def test_variants_of_a_method_have_a_colour_of_their_own(tmp_path):
    make_job(tmp_path, "none", "k562")
    make_job(tmp_path, "none", "k562", overrides=("training.lr=0.1",))
    for preset in ("ptrag", "ptrag_paper"):
        make_job(tmp_path, "differentiable", "k562", 0, 2, preset=preset)
    make_job(tmp_path, "vanilla", "k562", 0, 2)
    ax = k_plot(table2(read_sweep(tmp_path), metric="mse").rows, BY_NAME["mse"], "title").axes[0]
    lines = [bar.lines[0] for bar in ax.containers] + [line for line in ax.lines if line.get_label()[0] != "_"]
    naive = {line.get_color() for line in lines if line.get_label() in ("no effect", "mean effect")}
    methods = [line.get_color() for line in lines if line.get_label() not in ("no effect", "mean effect")]
    assert len(methods) == 5
    assert len({*methods, *naive}) == 5 + len(naive)


def test_what_retrieves_nothing_is_a_level(table):
    ax = k_plot(table.rows, BY_NAME["mse"], "title").axes[0]
    levels = {line.get_label(): line.get_ydata()[0] for line in ax.lines}
    known = table.rows.set_index("predictor")["mean"]
    for name in ("STATE", "no effect", "mean effect"):
        assert levels[name] == pytest.approx(known[name])
