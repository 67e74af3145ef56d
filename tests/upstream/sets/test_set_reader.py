"""Sets that are read together have the cells and controls that cell-load's own loader gives."""

import random

import numpy as np
import pytest
import torch

from state_rag.upstream.data_module import LimitedDataModule
from state_rag.upstream.sets import grouped_loader, set_reader
from state_rag.upstream.sets.grouped_loader import GroupedLoader, read_ahead
from state_rag.upstream.sets.set_reader import SetReader
from tests.upstream.test_data_module import COLUMNS


@pytest.fixture
def make_loader(two_lines):
    def make(**settings):
        arguments = {"batch_size": 2, "num_workers": 0, "cell_sentence_len": 7, **COLUMNS, **settings}
        np.random.seed(0)
        module = LimitedDataModule(toml_config_path=str(two_lines), **arguments)
        module.setup()
        return module.test_dataloader()

    return make


def gathered(sets):
    """What sets hold, joined."""
    names = sets[0].batch.keys()
    return {
        name: torch.cat([one.batch[name] for one in sets])
        if isinstance(sets[0].batch[name], torch.Tensor)
        else [x for one in sets for x in one.batch[name]]
        for name in names
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"basal_mapping_strategy": "batch", "barcode": True},
        {"num_workers": 3},
        {"embed_key": None, "output_space": "all", "store_raw_expression": True},
        {"output_space": "all", "store_raw_expression": True},
    ],
    ids=["random", "batch", "workers", "genes", "genes beside"],
)
def test_all_that_a_set_has_is_that_of_the_loader(make_loader, settings, monkeypatch):
    monkeypatch.setattr(grouped_loader, "WINDOW_BYTES", 8 * 40 * 25)
    expected = list(make_loader(**settings))
    loader = make_loader(**settings)
    assert SetReader.can_read(loader)
    windows = [item["sets"] for item in GroupedLoader(loader, together=True, count_cells=True)]
    assert len(windows) > 3
    assert [size for sets in windows for size in sets.sizes] == [len(batch["pert_name"]) for batch in expected]
    found = gathered(windows)
    for name in set(expected[0]) - {"pert_emb", "cell_type_onehot", "batch"}:
        values = [batch[name] for batch in expected]
        if isinstance(values[0], torch.Tensor):
            assert torch.equal(found[name], torch.cat(values)), name
        else:
            assert [str(x) for x in found[name]] == [str(x) for part in values for x in part], name
    assert torch.equal(found["batch"], torch.cat([batch["batch"] for batch in expected]).argmax(-1))


def test_controls_are_the_same_however_few_of_them_are_kept(make_loader, monkeypatch):
    expected = torch.cat([batch["ctrl_cell_emb"] for batch in make_loader()])
    for kept in (1, 4 * 40 * 12, 4 * 40 * 60):
        monkeypatch.setattr(set_reader, "KEPT_BYTES", kept)
        windows = [item["sets"] for item in GroupedLoader(make_loader(), together=True, count_cells=True)]
        assert torch.equal(gathered(windows)["ctrl_cell_emb"], expected)


@pytest.mark.parametrize("changed", ["downsample", "additional_obs", "store_raw_basal"])
def test_a_loader_that_does_more_is_asked_itself(make_loader, changed):
    value = {"downsample": 0.5, "additional_obs": ["gem_group"], "store_raw_basal": True}[changed]
    expected = list(make_loader(**{changed: value}))
    loader = make_loader(**{changed: value})
    assert not SetReader.can_read(loader)
    found = gathered([item["sets"] for item in GroupedLoader(loader, together=True, count_cells=True)])
    assert found.keys() == expected[0].keys()
    assert torch.equal(found["ctrl_cell_emb"], torch.cat([batch["ctrl_cell_emb"] for batch in expected]))


def test_state_counts_the_cells_or_none(make_loader):
    cells = sum(map(len, make_loader().batch_sampler.batches))
    assert GroupedLoader(make_loader(), together=True, count_cells=True).batch_sampler.tot_num == cells
    none = GroupedLoader(make_loader(), together=True, count_cells=False)
    assert (none.batch_sampler.tot_num, none.n_cells) == (0, cells)


def test_reading_ahead_keeps_the_order_and_tells_what_went_wrong():
    def source():
        yield from range(20)
        raise KeyError("gone")

    seen = []
    with pytest.raises(KeyError, match="gone"):
        seen.extend(iter_into(seen, read_ahead(source())))
    assert seen == list(range(20))


def iter_into(seen, items):
    """Take items one by one, so that those before an error are kept."""
    for item in items:
        seen.append(item)
    return []


def test_reading_stops_when_nobody_wants_more():
    stopped = []

    def source():
        try:
            while True:
                yield random.random()
        finally:
            stopped.append(True)

    items = read_ahead(source())
    next(items)
    items.close()
    del items
    import gc

    gc.collect()
    assert stopped
