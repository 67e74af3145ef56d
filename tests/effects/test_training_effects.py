import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects.conditions import Columns
from state_rag.effects.training_effects import training_effects
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import naive_baselines
from tests.evaluation.made_up import CONTROL, HELD_OUT, LINES


def plain_effects(screen, trains):
    adata = ad.read_h5ad(screen.h5ad)
    found = {}
    for line in LINES:
        of_line = adata.obs["cell_line"] == line
        control = adata[of_line & (adata.obs["gene"] == CONTROL)].X.mean(axis=0, dtype=float)
        for name in screen.perturbations:
            if trains(line, name):
                mean = adata[of_line & (adata.obs["gene"] == name)].X.mean(axis=0, dtype=float)
                found.setdefault(line, {})[name] = mean - control
    return found


def check(found, expected):
    assert {line: set(effects) for line, effects in found.items()} == {k: set(v) for k, v in expected.items()}
    for line, effects in expected.items():
        for name, effect in effects.items():
            np.testing.assert_allclose(found[line][name], effect, atol=1e-5)


def test_effects_of_a_few_shot_split_equal_plain_means_over_training_conditions(screen):
    training = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    check(training.effects, plain_effects(screen, lambda line, name: line != HELD_OUT or name not in screen.test))


def test_a_zero_shot_line_trains_on_controls_only(screen, tmp_path):
    path = tmp_path / "zero.toml"
    path.write_text(
        f'[datasets]\nscreen = "{screen.h5ad}"\n[training]\nscreen = "train"\n'
        f'[zeroshot]\n"screen.{HELD_OUT}" = "test"\n'
    )
    training = training_effects(read_split(path), Columns(), "obsm/X_hvg", len(screen.genes), progress=False)
    check(training.effects, plain_effects(screen, lambda line, _: line != HELD_OUT))


def test_training_conditions_are_those_of_cell_loads_own_data_module(screen):
    modules = pytest.importorskip("cell_load.data_modules")
    module = modules.PerturbationDataModule(
        str(screen.toml), num_workers=0, cell_type_key="cell_line", embed_key="X_hvg", output_space="gene"
    )
    module.setup()
    theirs = set()
    for subset in module.train_datasets:
        cache = subset.dataset.metadata_cache
        for row in subset.indices:
            name = str(cache.pert_categories[cache.pert_codes[row]])
            if name != CONTROL:
                theirs.add((str(cache.cell_type_categories[cache.cell_type_codes[row]]), name))
    training = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    assert {(line, name) for line, effects in training.effects.items() for name in effects} == theirs


def test_chunks_do_not_change_the_effects(screen, monkeypatch):
    whole = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    monkeypatch.setattr("state_rag.effects.cell_sums.BLOCK_VALUES", 17 * len(screen.genes))
    parts = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    check(parts.effects, whole.effects)


def written(path, adata):
    adata.write_h5ad(path.with_suffix(".h5ad"))
    path.write_text(f'[datasets]\nscreen = "{path.with_suffix(".h5ad")}"\n[training]\nscreen = "train"\n')
    return read_split(path)


def effects_of(split, columns=None):
    return training_effects(split, columns or Columns(), "X", 60, progress=False)


def test_cells_in_another_order_and_in_several_files_have_the_same_effects(screen, tmp_path, monkeypatch):
    monkeypatch.setattr("state_rag.effects.cell_sums.BLOCK_VALUES", 100 * len(screen.genes))
    adata = ad.read_h5ad(screen.h5ad)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    (tmp_path / "parts").mkdir()
    for number, rows in enumerate(np.array_split(order, 3)):
        adata[rows].write_h5ad(tmp_path / "parts" / f"{number}.h5ad")
    (tmp_path / "parts.toml").write_text(f'[datasets]\nscreen = "{tmp_path / "parts"}"\n[training]\nscreen = "train"\n')
    whole, parts = effects_of(written(tmp_path / "whole.toml", adata)), effects_of(read_split(tmp_path / "parts.toml"))
    assert whole.n_conditions == 3 * len(screen.perturbations)
    check(parts.effects, whole.effects)


def test_means_over_lines_are_plain_means_of_the_lines_that_have_the_perturbation(screen):
    training = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    means = training.mean_over_lines()
    assert set(means) == set(screen.perturbations)
    for name in (screen.test[0], screen.few_shot[0]):
        found = [effects[name] for effects in training.effects.values() if name in effects]
        assert len(found) == (2 if name in screen.test else 3)
        np.testing.assert_allclose(means[name], np.mean(found, axis=0))
    assert means.get("unknown") is None
    assert training.effects["k562"].get("unknown") is None


def test_conditions_with_nan_are_left_out_and_named_and_the_others_stay(screen, tmp_path):
    adata = ad.read_h5ad(screen.h5ad)
    whole = effects_of(written(tmp_path / "whole.toml", adata))
    bad = np.flatnonzero((adata.obs["cell_line"] == "k562") & (adata.obs["gene"] == "P03"))[:2]
    adata.X[bad, [4, 7]] = np.nan, np.inf
    training = effects_of(written(tmp_path / "bad.toml", adata))
    assert training.not_finite == ["P03 in k562"]
    assert training.n_conditions == whole.n_conditions - 1
    assert "P03" not in training.effects["k562"]
    assert np.isfinite(training.mean_over_lines()["P03"]).all()
    np.testing.assert_allclose(training.effects["k562"]["P04"], whole.effects["k562"]["P04"])


def test_lines_whose_controls_are_missing_or_have_nan_are_left_out_and_say_why(screen, tmp_path):
    adata = ad.read_h5ad(screen.h5ad)
    control = adata.obs["gene"] == CONTROL
    adata.X[np.flatnonzero(control & (adata.obs["cell_line"] == "k562"))[0], 0] = np.nan
    adata = adata[~(control & (adata.obs["cell_line"] == "jurkat"))].copy()
    training = effects_of(written(tmp_path / "bad.toml", adata))
    assert training.lines_left_out == {
        "jurkat": "no control cells",
        "k562": "NaN or infinity in its control cells",
    }
    assert list(training.effects) == [HELD_OUT]
    assert training.labels[:2] == ["P00", "P01"]


def test_cells_without_a_label_are_counted(screen, tmp_path, caplog):
    adata = ad.read_h5ad(screen.h5ad)
    expected = effects_of(written(tmp_path / "all.toml", adata[3:].copy()))
    adata.obs.loc[adata.obs_names[:3], "gene"] = np.nan
    check(effects_of(written(tmp_path / "some.toml", adata)).effects, expected.effects)
    assert "3 cells without a label" in caplog.text


def test_memory_does_not_grow_with_the_number_of_training_conditions(tmp_path, monkeypatch):
    genes = 2000
    monkeypatch.setattr("state_rag.effects.cell_sums.BLOCK_VALUES", 64 * genes)
    monkeypatch.setattr("state_rag.effects.cell_sums.IN_MEMORY", 2 * 64 * genes * 8)
    monkeypatch.setattr("state_rag.metrics.row_blocks.BLOCK_ROWS", 16)
    rng = np.random.default_rng(0)
    peaks = []
    for conditions in (150, 150, 550):
        names = [CONTROL, *(f"P{number}" for number in range(conditions))]
        values = rng.random((2 * len(names), genes), dtype=np.float32)
        obs = pd.DataFrame({"gene": names * 2, "cell_line": "k562"}, index=[str(n) for n in range(len(values))])
        split = written(tmp_path / f"{conditions}.toml", ad.AnnData(values, obs=obs))
        vectors = {name: rng.normal(size=8) for name in names}
        del values
        tracemalloc.start()
        baselines = naive_baselines(training_effects(split, Columns(), "X", genes, progress=False), genes, vectors)
        assert all(np.isfinite(baseline.effect("P1", "k562")).all() for baseline in baselines.values())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_float32_profile_of_each = 400 * genes * 4
    assert peaks[2] - peaks[1] < one_float32_profile_of_each / 4, peaks


def test_a_moved_data_file_and_another_width_are_user_errors(screen, tmp_path):
    (tmp_path / "moved.toml").write_text('[datasets]\nscreen = "/nowhere/screen.h5ad"\n[training]\nscreen = "train"\n')
    with pytest.raises(StateRagError, match="/nowhere/screen.h5ad.*--toml"):
        training_effects(read_split(tmp_path / "moved.toml"), Columns(), "X", 60)
    with pytest.raises(StateRagError, match="has 60 columns, the predictions have 61"):
        training_effects(read_split(screen.toml), Columns(), "X", 61)
