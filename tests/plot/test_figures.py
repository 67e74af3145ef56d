import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from state_rag.analysis.overlap import overlap_between_lines
from state_rag.analysis.records import Retrieved
from state_rag.plot import figures, style

LONG = "a_run_of_ptrag_with_a_long_name_lr1e-3_K{}_hidden128"


def curves(names):
    return {name: pd.DataFrame({"step": [1, 2], "val_loss": [2.0, 1.0]}) for name in names}


def drawn(text):
    """Return a text as matplotlib draws it, and whether it takes it for mathematics."""
    figure = Figure()
    return figure.text(0, 0, text)._preprocess_math(text)


@pytest.mark.parametrize("name", ["$x_1$", "50$", "a$b$c", "$\\foo$", "plain"])
def test_a_dollar_in_a_name_is_a_dollar_in_the_picture(name):
    assert drawn(style.labels([name])[0]) == (name, False)
    style.settle(figures.learning_curves(curves([name, "other"]), "val_loss"))


def test_names_that_would_be_alike_when_cut_stay_whole():
    middle = [f"{'a' * 30}{number}{'b' * 30}" for number in range(2)]
    assert style.labels(middle) == middle
    assert all(len(label) <= style.LONGEST for label in style.labels([LONG.format(number) for number in range(12)]))


def test_no_two_of_thirty_runs_have_the_same_line_and_the_legend_covers_no_curve():
    figure = figures.learning_curves(curves([LONG.format(number) for number in range(30)]), "val_loss")
    style.settle(figure)
    (ax,), (legend,) = figure.axes, figure.legends
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 30
    box = legend.get_window_extent()
    assert not box.overlaps(ax.get_window_extent())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def overlap(scale, lines=("a", "b", "c")):
    rng = np.random.default_rng(0)
    return overlap_between_lines(
        [
            Retrieved(line, f"P{number}", tuple("ABCD"), scale * rng.random(4), 1)
            for line in lines
            for number in range(5)
        ]
    )


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_the_map_shows_both_indices_and_says_which_is_which():
    assert titles(figures.jaccard_map(overlap(1.0))) == [
        "selected sets (mean inclusion > 0.5)",
        "weighted by mean inclusion",
    ]


def test_the_map_shows_the_weighted_index_alone_where_nothing_is_selected():
    (title,) = titles(figures.jaccard_map(overlap(0.4)))
    assert title.startswith("weighted by mean inclusion")
    assert "no set is selected" in title


def test_one_cell_line_has_no_map():
    assert figures.jaccard_map(overlap(1.0, lines=("a",))) is None


def test_many_panels_go_on_in_the_next_row():
    rng = np.random.default_rng(0)
    panels = [(f"P{number}", *rng.normal(size=(2, 9)), rng.random(9) < 0.5) for number in range(figures.IN_A_ROW + 1)]
    figure = figures.effect_scatters(panels)
    rows = {ax.get_subplotspec().rowspan.start for ax in figure.axes if ax.get_visible()}
    assert rows == {0, 1}


@pytest.mark.parametrize(("count", "groups"), [(30, 0), (90, 4), (3000, 10)])
def test_means_are_drawn_over_groups_of_twenty_neighbours_or_more(count, groups):
    similarity = np.linspace(0, 1, count)
    table = pd.DataFrame({"similarity": similarity, "inclusion": similarity**2})
    (axes,) = figures.inclusion_against(table, "similarity", "similarity").axes
    assert [len(line.get_xdata()) for line in axes.lines] == ([groups] if groups else [])
    for line in axes.lines:
        expected = [part.mean() for part in np.array_split(similarity**2, groups)]
        assert line.get_ydata() == pytest.approx(expected, abs=0.02)
