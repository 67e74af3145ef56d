import anndata as ad
import numpy as np
import pytest

from state_rag.datasets.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.evaluation.conditions import Columns
from state_rag.evaluation.training_effects import training_effects
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
    monkeypatch.setattr("state_rag.evaluation.training_effects.CHUNK", 17)
    parts = training_effects(read_split(screen.toml), Columns(), "X", len(screen.genes), progress=False)
    check(parts.effects, whole.effects)


def test_a_moved_data_file_and_another_width_are_user_errors(screen, tmp_path):
    (tmp_path / "moved.toml").write_text('[datasets]\nscreen = "/nowhere/screen.h5ad"\n[training]\nscreen = "train"\n')
    with pytest.raises(StateRagError, match="/nowhere/screen.h5ad.*--toml"):
        training_effects(read_split(tmp_path / "moved.toml"), Columns(), "X", 60)
    with pytest.raises(StateRagError, match="has 60 columns, the predictions have 61"):
        training_effects(read_split(screen.toml), Columns(), "X", 61)
