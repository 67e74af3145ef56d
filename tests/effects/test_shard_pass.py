import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import state_rag as sr
from state_rag.cache import program_digest
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects import shard_pass, shards
from state_rag.effects.conditions import Columns
from state_rag.effects.group_totals import GroupTotals
from state_rag.effects.shard_pass import CellsOf, add_files
from state_rag.effects.shards import PROGRAM
from state_rag.effects.training_effects import training_effects
from state_rag.effects.workers import Workers
from state_rag.errors import StateRagError

LINES, NAMES, GENES = ("rpe1", "k562"), ("non-targeting", "TP53", "A1", "MYC"), 30


def made(cells=900, seed=0):
    rng = np.random.default_rng(seed)
    values = sparse.random(cells, GENES, 0.2, format="csr", dtype=np.float32, random_state=seed)
    values.data = np.log1p(rng.poisson(3, values.nnz) + 1).astype(np.float32)
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(rng.integers(0, len(NAMES), cells), NAMES),
            "cell_line": pd.Categorical.from_codes(rng.integers(0, len(LINES), cells), LINES),
        },
        index=[f"cell{number}" for number in range(cells)],
    )
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{number}" for number in range(GENES)]))


@pytest.fixture
def cells():
    return made()


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Sums of the smallest files are kept too, in a folder of this test's own."""
    monkeypatch.setattr(shards, "KEPT_FROM", 0)
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sums"


@pytest.fixture
def reads(monkeypatch):
    """Names of the shards that are read, as they are."""
    found = []
    read = shards.sum_shard

    def noted(wanted, shard, told=None):
        found.append((shard.path.name, shard.start))
        return read(wanted, shard, told)

    monkeypatch.setattr(shard_pass, "sum_shard", noted)
    return found


def in_parts(cells, folder, count=3, suffix="h5ad"):
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(cells.n_obs), count)):
        part = cells[rows].copy()
        part.obs = part.obs.apply(lambda column: column.cat.remove_unused_categories())
        part.write_h5ad(folder / f"{number}.h5ad") if suffix == "h5ad" else part.write_zarr(folder / f"{number}.zarr")
    return folder


def plain(cells):
    """Mean, deviation and number of each condition's cells, by a loop over conditions."""
    found = {}
    for line in LINES:
        for name in NAMES:
            own = cells[((cells.obs["cell_line"] == line) & (cells.obs["gene"] == name)).to_numpy()].X
            own = (own.toarray() if sparse.issparse(own) else own).astype(float)
            found[line, name] = own.mean(axis=0), own.std(axis=0, ddof=1), len(own)
    return found


def totals_of(files, columns=None, **options):
    totals = GroupTotals(squares=True)
    found = add_files(totals, [CellsOf(file) for file in files], columns or Columns(), "X", progress=False, **options)
    return totals, found


def check(totals, expected, tolerance=1e-6):
    assert set(totals.groups()) == set(expected)
    for group, (mean, std, count) in expected.items():
        assert totals.cells[group] == count
        np.testing.assert_allclose(totals.mean(group), mean, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(totals.std(group), std, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_shards_of_either_format_have_the_sums_of_a_plain_loop(cells, tmp_path, suffix, form):
    if form == "dense":
        cells.X = cells.X.toarray()
    totals, _ = totals_of(sorted(in_parts(cells, tmp_path / "parts", suffix=suffix).iterdir()))
    check(totals, plain(cells))


def test_kept_sums_and_sums_in_memory_are_the_same_bit_by_bit(cells, tmp_path, kept, monkeypatch):
    files = sorted(in_parts(cells, tmp_path / "parts").iterdir())
    written, _ = totals_of(files)
    again, _ = totals_of(files)
    monkeypatch.setattr(shards, "KEPT_FROM", 2**40)
    direct, _ = totals_of(files)
    assert written.groups() == again.groups() == direct.groups()
    for group in direct.groups():
        for other in (written, again):
            assert other.mean(group).tobytes() == direct.mean(group).tobytes()
            assert other.std(group).tobytes() == direct.std(group).tobytes()


def test_conditions_keep_the_order_of_the_categories_when_a_file_is_read_in_stretches(cells, tmp_path, monkeypatch):
    cells.write_h5ad(tmp_path / "one.h5ad")
    whole, _ = totals_of([tmp_path / "one.h5ad"])
    assert whole.groups() == [(line, name) for line in cells.obs["cell_line"].cat.categories for name in NAMES]
    cells[cells.obs.sort_values(["gene", "cell_line"], ascending=False).index].copy().write_h5ad(tmp_path / "one.h5ad")
    monkeypatch.setattr(shards, "CELLS_AT_ONCE", 50)
    stretches, _ = totals_of([tmp_path / "one.h5ad"])
    assert stretches.groups() == whole.groups()
    check(stretches, plain(cells))


def test_a_pass_that_was_stopped_reads_only_what_is_missing(cells, tmp_path, kept, monkeypatch, reads):
    files = sorted(in_parts(cells, tmp_path / "parts", 4).iterdir())

    class Stopped(Exception):
        pass

    join = GroupTotals.join

    def stop_at_the_third(self, found, groups):
        if sum(self.cells.values()) > 300:
            raise Stopped
        join(self, found, groups)

    monkeypatch.setattr(GroupTotals, "join", stop_at_the_third)
    monkeypatch.setattr("state_rag.effects.workers._THREADS", 1)
    with pytest.raises(Stopped):
        totals_of(files)
    done = len(list(kept.glob("*.arrow")))
    assert 2 <= done <= 4
    missing = [file for file in files if file.name not in {name for name, _ in reads}]
    for path in list(kept.glob("*.arrow"))[: 1 if not missing else 0]:  # all were done before the stop was heard
        path.unlink()
    reads.clear()
    monkeypatch.setattr(GroupTotals, "join", join)
    totals, _ = totals_of(files)
    assert len(reads) == max(4 - done, 1)
    check(totals, plain(cells))
    assert not [path for path in kept.iterdir() if path.suffix != ".arrow"]
    reads.clear()
    totals_of(files)
    assert reads == []


def test_a_changed_shard_is_read_again_and_a_moved_one_is_not(cells, tmp_path, kept, reads):
    folder = in_parts(cells, tmp_path / "parts")
    totals_of(sorted(folder.iterdir()))
    reads.clear()
    folder.rename(tmp_path / "elsewhere")
    files = sorted((tmp_path / "elsewhere").iterdir())
    totals_of(files)
    assert reads == []
    changed = ad.read_h5ad(files[1])
    changed.X = changed.X * 2
    changed.write_h5ad(files[1])
    totals, _ = totals_of(files)
    assert reads == [("1.h5ad", 0)]
    check(totals, plain(ad.concat([ad.read_h5ad(file) for file in files])))


def test_a_changed_value_in_a_zarr_store_is_noticed(cells, tmp_path, kept, reads):
    import zarr

    cells.write_zarr(tmp_path / "one.zarr")
    totals_of([tmp_path / "one.zarr"])
    zarr.open_group(str(tmp_path / "one.zarr"), mode="r+")["X/data"][0] = 77.0
    totals, _ = totals_of([tmp_path / "one.zarr"])
    assert len(reads) == 2
    check(totals, plain(ad.read_zarr(tmp_path / "one.zarr")))


def test_other_genes_columns_or_matrices_are_kept_apart_and_another_split_is_not(cells, tmp_path, kept, reads):
    cells.obs["other"] = cells.obs["gene"]
    cells.obsm["X_hvg"] = cells.X.toarray()[:, :5]
    cells.write_h5ad(tmp_path / "one.h5ad")
    files = [CellsOf(tmp_path / "one.h5ad")]
    for matrix, columns, names in (
        ("X", Columns(), None),
        ("obsm/X_hvg", Columns(), None),
        ("X", Columns("other"), None),
        ("X", Columns(), ["G2", "G1"]),
    ):
        totals = GroupTotals()
        add_files(totals, files, columns, matrix, names, progress=False)
        assert totals.mean(("k562", "MYC")).shape == ({"X": GENES}.get(matrix, 5) if names is None else 2,)
    assert len(reads) == 4
    totals = GroupTotals()
    some = CellsOf(tmp_path / "one.h5ad", lambda line, label, name: name in ("non-targeting", "MYC"))
    add_files(totals, [some], Columns(), "X", progress=False)
    assert len(reads) == 4
    assert {name for _, name in totals.groups()} == {"non-targeting", "MYC"}


def test_sums_that_another_version_of_the_program_made_are_made_again(cells, tmp_path, kept, reads, monkeypatch):
    cells.write_h5ad(tmp_path / "one.h5ad")
    source = tmp_path / "matrices.py"
    monkeypatch.setattr(shards, "PROGRAM", (source,))
    for text in ("VALUE = 1", "VALUE = 2", "VALUE = 1"):
        source.write_text(text)
        program_digest.cache_clear()
        totals_of([tmp_path / "one.h5ad"])
    program_digest.cache_clear()
    assert len(reads) == 2
    assert all(part.exists() for part in PROGRAM)


def test_damaged_kept_sums_are_made_again(cells, tmp_path, kept, reads):
    cells.write_h5ad(tmp_path / "one.h5ad")
    totals_of([tmp_path / "one.h5ad"])
    (only,) = kept.glob("*.arrow")
    only.write_bytes(only.read_bytes()[:-100])
    totals, _ = totals_of([tmp_path / "one.h5ad"])
    assert len(reads) == 2
    check(totals, plain(cells))


@pytest.mark.parametrize("how", ["truncated", "index out of bounds", "no matrix", "no column"])
def test_a_broken_shard_names_itself(cells, tmp_path, how):
    import h5py

    folder = in_parts(cells, tmp_path / "parts")
    broken = folder / "1.h5ad"
    if how == "truncated":
        broken.write_bytes(broken.read_bytes()[:5000])
    else:
        with h5py.File(broken, "r+") as file:
            if how == "index out of bounds":
                file["X/indices"][7] = 5000
            elif how == "no matrix":
                del file["X"]
            else:
                del file["obs/gene"]
    with pytest.raises(StateRagError, match="1.h5ad"):
        totals_of(sorted(folder.iterdir()))


def test_genes_in_another_order_are_brought_into_that_of_the_first_and_missing_ones_are_refused(cells, tmp_path, kept):
    folder = in_parts(cells, tmp_path / "parts")
    second = ad.read_h5ad(folder / "1.h5ad")
    second[:, ::-1].copy().write_h5ad(folder / "1.h5ad")
    totals, aligned = totals_of(sorted(folder.iterdir()))
    assert aligned.names == list(cells.var_names)
    check(totals, plain(cells))
    second[:, 3:].copy().write_h5ad(folder / "1.h5ad")
    with pytest.raises(StateRagError, match=r"1\.h5ad.*lacks 3 of the 30 genes"):
        totals_of(sorted(folder.iterdir()))


def test_deviations_are_exact_where_all_values_are_far_from_zero_and_shards_differ(tmp_path):
    rng = np.random.default_rng(0)
    cells = made(400)
    cells.X = (rng.normal(0, 0.5, cells.shape) + 5000 + np.arange(400)[:, None] // 200 * 100).astype(np.float64)
    totals, _ = totals_of(sorted(in_parts(cells, tmp_path / "parts", 2).iterdir()))
    check(totals, plain(cells), 1e-9)


def test_labels_of_doses_and_missing_labels_are_those_of_one_file(cells, tmp_path, caplog, monkeypatch):
    from state_rag.datasets.treated_labels import TreatmentColumns

    cells.obs["dose"] = pd.Categorical(np.where(np.arange(cells.n_obs) % 3, "1", "10"))
    cells.obs.iloc[5, cells.obs.columns.get_loc("gene")] = np.nan
    cells.write_h5ad(tmp_path / "one.h5ad")
    columns = Columns(treatment=TreatmentColumns(dose="dose"))
    one, _ = totals_of([tmp_path / "one.h5ad"], columns)
    monkeypatch.setattr(shards, "CELLS_AT_ONCE", 100)
    parts, _ = totals_of([tmp_path / "one.h5ad"], columns)
    assert one.groups() == parts.groups()
    assert ("k562", "MYC:dose=10") in one
    for group in one.groups():
        np.testing.assert_allclose(parts.mean(group), one.mean(group), atol=1e-12)
    assert caplog.text.count("1 cells without a label") == 2


def test_effects_of_a_pattern_a_folder_and_a_split_of_zarr_stores_are_those_of_one_file(cells, tmp_path):
    cells.write_h5ad(tmp_path / "one.h5ad")
    folder = in_parts(cells, tmp_path / "parts", suffix="zarr")
    (tmp_path / "split.toml").write_text(f'[datasets]\nmine = "{folder}/*.zarr"\n[training]\nmine = "train"\n')
    one = sr.effects.read(tmp_path / "one.h5ad", progress=False)
    for source in (folder, f"{folder}/*.zarr", f"{folder}/{{0,1,2}}.zarr", tmp_path / "split.toml"):
        other = sr.effects.read(source, progress=False)
        assert other.obs.equals(one.obs)
        np.testing.assert_allclose(other.X, one.X, atol=1e-12)
        np.testing.assert_allclose(other.layers["std"], one.layers["std"], rtol=1e-6)
    of_split = training_effects(read_split(tmp_path / "split.toml"), Columns(), "X", GENES, progress=False)
    assert of_split.n_conditions == 6


def test_a_shard_without_controls_or_of_one_condition_counts_with_the_others(cells, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, (_, rows) in enumerate(cells.obs.groupby(["gene", "cell_line"], observed=True)):
        cells[rows.index].copy().write_h5ad(folder / f"{number:02}.h5ad")
    totals, _ = totals_of(sorted(folder.iterdir()))
    check(totals, plain(cells))


def test_workers_of_dask_give_the_same(cells, tmp_path, kept):
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    from distributed import LocalCluster

    files = sorted(in_parts(cells, tmp_path / "parts", 5).iterdir())
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        totals, _ = totals_of(files, workers=Workers(cluster.scheduler_address))
        assert len(list(kept.glob("*.arrow"))) == 5
        (tmp_path / "parts" / "3.h5ad").write_bytes(b"no h5ad file")
        with pytest.raises(StateRagError, match="3.h5ad"):
            totals_of(files, workers=Workers(cluster.scheduler_address))
    check(totals, plain(cells))


def test_memory_does_not_grow_with_cells_or_files(tmp_path, monkeypatch):
    monkeypatch.setattr("state_rag.effects.cell_sums.BLOCK_VALUES", 10_000)
    monkeypatch.setattr("state_rag.effects.workers._THREADS", 1)
    made(3000).write_h5ad(tmp_path / "one.h5ad")
    totals_of([tmp_path / "one.h5ad"])  # compiles
    peaks = []
    for count in (6, 30):
        for number in range(count):
            (tmp_path / f"{count}_{number}.h5ad").symlink_to(tmp_path / "one.h5ad")
        tracemalloc.start()
        totals_of(sorted(tmp_path.glob(f"{count}_*.h5ad")))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0], peaks


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(cells, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STATE_RAG_CACHE", str(tmp_path / "file"))
    cells.write_h5ad(tmp_path / "one.h5ad")
    totals, _ = totals_of([tmp_path / "one.h5ad"])
    check(totals, plain(cells))
    assert "STATE_RAG_CACHE" in caplog.text
