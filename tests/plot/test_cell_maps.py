from pathlib import Path

import numpy as np
import pytest
from umap import umap_

from state_rag.effects.conditions import open_pair
from state_rag.evaluation.runs import find_run
from state_rag.plot import cell_maps
from state_rag.run_folders import PREDICTED, REAL


@pytest.fixture
def pair(runs):
    run = find_run(runs["good"])
    return open_pair(run.predictions / PREDICTED, run.predictions / REAL, run.columns)


def points(figure):
    return [[np.asarray(drawn.get_offsets()) for drawn in ax.collections] for ax in figure.axes]


def test_both_maps_show_every_kind_of_cell_and_are_the_same_at_every_call(pair):
    first, again = (cell_maps.cell_maps(pair, "hepg2", ["P01", "P02"]) for _ in range(2))
    assert [drawn.name for drawn in first] == ["cells", "umap"]
    for one, other in zip(first, again, strict=True):
        assert [[len(cells) for cells in panel] for panel in points(one.figure)] == [[100, 25, 25], [100, 25, 25]]
        for mine, theirs in zip(points(one.figure), points(other.figure), strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
        assert all(ax.get_xlabel() for ax in one.figure.axes)
        assert "100 of 100 control, 50 of 50 real, 50 of 50 predicted" in one.caption


def test_many_cells_are_thinned_and_the_caption_says_so(pair, monkeypatch):
    monkeypatch.setattr(cell_maps, "MAP_CELLS", 20)
    drawn = cell_maps.cell_maps(pair, "hepg2", ["P01"])[0]
    assert [len(cells) for cells in points(drawn.figure)[0]] == [20, 20, 20]
    assert "20 of 100 control, 20 of 25 real, 20 of 25 predicted" in drawn.caption


def test_umap_is_left_out_where_there_are_too_few_cells(pair, monkeypatch):
    monkeypatch.setattr(cell_maps, "MAP_CELLS", 3)
    assert [drawn.name for drawn in cell_maps.cell_maps(pair, "hepg2", ["P01"])] == ["cells"]


def test_what_numba_compiled_of_umap_lies_on_disk_for_the_next_process(pair):
    cell_maps.cell_maps(pair, "hepg2", ["P01"])
    for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths):
        assert list(Path(function.stats.cache_path).glob(f"umap_.{function.__name__}-*.nbc"))
