import io
from types import SimpleNamespace

import tqdm

from state_rag.upstream.sets.cell_bar import counting_cells
from state_rag.upstream.sets.grouped_loader import GroupedLoader


class Loader(GroupedLoader):
    """Two windows of three sets."""

    def __init__(self):
        self.n_cells = 20
        self.batch_sampler = SimpleNamespace(tot_num=0)

    def __len__(self):
        return 3

    def __iter__(self):
        for sizes in ([4, 6], [10]):
            yield {"sets": SimpleNamespace(sizes=sizes)}


def test_the_bar_counts_cells_and_other_bars_are_left_alone():
    stream, usual = io.StringIO(), tqdm.tqdm
    with counting_cells():
        assert len(list(tqdm.tqdm(Loader(), desc="Predicting", unit="batch", file=stream))) == 2
        assert list(tqdm.tqdm(range(3), file=io.StringIO())) == [0, 1, 2]
    assert tqdm.tqdm is usual
    last = stream.getvalue().split("\r")[-1]
    assert "20/20" in last
    assert "cells/s" in last
