"""No cell of a held-out test condition reaches training or the choice of a checkpoint, by what the loaders yield.

`state tx train` runs in this process as far as Lightning's `Trainer.fit`; what takes the place of `fit` reads the data
module that it was given, epoch by epoch. Column 0 of every cell's features is its row in the h5ad file, over `SCALE`,
so that each yielded cell can be told from all others, whatever label it is yielded under.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest

from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.perturbation_splits import write_perturbation_splits
from state_rag.datasets.splitting.splits import read_split, write_split
from tests.datasets.helpers import SMALL
from tests.end_to_end.commands import REPLOGLE_COLUMNS, SHORT, TINY_MODEL

LINES = ("hepg2", "k562", "rpe1")
CONTROL = "non-targeting"
EPOCHS = 2
SCALE = 64
"""Brings a row's number to a size that log-normalised expression can have; exact in binary."""


class Stopped(BaseException):
    """Ends a training where it would begin to fit."""


@dataclass
class Yielded:
    """What one loader yielded: rows of the perturbed side, rows of the control side, and wrongly labelled rows."""

    rows: set[int] = field(default_factory=set)
    basal: set[int] = field(default_factory=set)
    mislabelled: list[tuple] = field(default_factory=list)


@dataclass
class Screen:
    """The file and, by row, its labels."""

    h5ad: Path
    embeddings: Path
    gene: np.ndarray
    line: np.ndarray

    def rows(self, line: str, genes) -> set[int]:
        """Return the rows of some perturbations in a line."""
        return set(np.flatnonzero((self.line == line) & np.isin(self.gene, list(genes))).tolist())

    def conditions(self, rows) -> set[tuple[str, str]]:
        """Return the line and perturbation of some rows."""
        return {(self.line[row], self.gene[row]) for row in rows}

    @property
    def controls(self) -> set[int]:
        return set(np.flatnonzero(self.gene == CONTROL).tolist())


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    made = simulate_screen(folder, seed=5, **{**SMALL, "cells_per_condition": 7, "lines": LINES})
    adata = anndata.read_h5ad(made.h5ad)
    adata.obsm["X_hvg"][:, 0] = np.arange(adata.n_obs) / SCALE
    adata.write_h5ad(made.h5ad)
    return Screen(
        made.h5ad,
        folder / "embeddings.safetensors",
        adata.obs["gene"].astype(str).to_numpy(),
        adata.obs["cell_line"].astype(str).to_numpy(),
    )


def rows_of(features) -> list[int]:
    """Return the rows of the file that yielded features are of."""
    return (features[:, 0] * SCALE).round().long().tolist()


@pytest.fixture
def loaded(screen, tmp_path, monkeypatch):
    """Return a function that gives what train, validation and test loaders of a training yield."""
    from cell_load.utils.data_utils import GlobalH5MetadataCache
    from state.__main__ import main

    def read(loader) -> Yielded:
        seen = Yielded()
        for batch in loader:
            rows = rows_of(batch["pert_cell_emb"])
            seen.rows.update(rows)
            seen.basal.update(rows_of(batch["ctrl_cell_emb"]))
            labels = zip(rows, batch["pert_name"], batch["cell_type"], strict=True)
            seen.mislabelled += [
                (row, gene, line) for row, gene, line in labels if (gene, line) != (screen.gene[row], screen.line[row])
            ]
        return seen

    def load(split: Path, rag: str = "ptrag") -> dict[str, Yielded]:
        caught = {}

        def fit(trainer, model, *args, datamodule, **named):
            epochs = [read(datamodule.train_dataloader()) for _ in range(EPOCHS)]
            caught["train"] = Yielded(
                set().union(*(epoch.rows for epoch in epochs)),
                set().union(*(epoch.basal for epoch in epochs)),
                [wrong for epoch in epochs for wrong in epoch.mislabelled],
            )
            caught["val"] = read(datamodule.val_dataloader())
            caught["test"] = read(datamodule.test_dataloader())
            raise Stopped

        GlobalH5MetadataCache()._cache.clear()
        monkeypatch.setattr(pl.Trainer, "fit", fit)
        flags = [f"rag={rag}"]
        if rag != "none":
            flags += ["training.topk_rag=4", f"training.genept_path={screen.embeddings}"]
        settings = ["model.kwargs.cell_set_len=4", f"data.kwargs.toml_config_path={split}", f"output_dir={tmp_path}"]
        words = ["tx", "train", "model=rag", "name=run", *REPLOGLE_COLUMNS, *SHORT, *TINY_MODEL, *settings, *flags]
        monkeypatch.setattr(sys, "argv", ["state", *words])
        with pytest.raises(Stopped):
            main()
        return caught

    return load


def held_out(screen: Screen, split: Path, part: str) -> set[int]:
    """Return the rows that a split keeps for validation or test, told from its lists and not by the loader."""
    said = read_split(split)
    rows: set[int] = set()
    for (_, line), lists in said.fewshot.items():
        rows |= screen.rows(line, lists[part])
    for (_, line), whole in said.zeroshot.items():
        if whole == part:
            rows |= screen.rows(line, set(screen.gene) - {CONTROL})
    return rows


def leaks(screen: Screen, split: Path, seen: dict[str, Yielded]) -> dict[str, set[int]]:
    """Return the rows of test conditions that a part other than the test set yielded, on either side of a pair."""
    forbidden = held_out(screen, split, "test")
    assert forbidden, "a split without test conditions proves nothing"
    return {part: (seen[part].rows | seen[part].basal) & forbidden for part in ("train", "val")}


def assert_sound(screen: Screen, split: Path, seen: dict[str, Yielded]) -> None:
    """Check every part: no leak, true labels, controls as basal cells, and each condition where it belongs."""
    assert leaks(screen, split, seen) == {"train": set(), "val": set()}
    wanted = {part: held_out(screen, split, part) for part in ("val", "test")}
    wanted["train"] = set(range(len(screen.gene))) - screen.controls - wanted["val"] - wanted["test"]
    for part, yielded in seen.items():
        assert not yielded.mislabelled
        assert yielded.basal <= screen.controls
        assert yielded.rows - screen.controls <= wanted[part], part
    assert seen["test"].rows - screen.controls == wanted["test"]
    for part in ("train", "val"):  # sets that are not full are filled by drawing with replacement, so cells may lack
        assert screen.conditions(seen[part].rows - screen.controls) == screen.conditions(wanted[part]), part


@pytest.mark.parametrize("line", LINES)
def test_with_any_line_held_out_only_the_test_loader_yields_its_test_cells(screen, loaded, tmp_path, line):
    split = write_split(screen.h5ad, line, output=tmp_path / "split.toml", few_shot=0.3)
    seen = loaded(split.path)
    assert_sound(screen, split.path, seen)
    assert seen["test"].rows >= screen.rows(line, split.test)
    others = set(LINES) - {line}
    assert all(seen["train"].rows & screen.rows(other, split.test) for other in others), "seen in the other lines"


@pytest.mark.parametrize(
    ("how", "rag"),
    [({"share": 0.25}, "ptrag"), ({"folds": 3}, "none"), ({"share": 0.25, "held_out": "hepg2"}, "ptrag")],
)
def test_held_out_perturbations_are_yielded_by_the_test_loader_only_in_every_line(screen, loaded, tmp_path, how, rag):
    split, *_ = write_perturbation_splits(screen.h5ad, output=tmp_path / "split.toml", **how)
    seen = loaded(split.path, rag)
    assert_sound(screen, split.path, seen)
    for line in LINES:
        assert seen["test"].rows >= screen.rows(line, split.test)
        assert not seen["train"].rows & screen.rows(line, [*split.test, *split.val])
    if "held_out" in how:
        assert not seen["train"].rows & screen.rows("hepg2", set(screen.gene) - {CONTROL})


def toml(screen: Screen, tmp_path: Path, body: str, datasets: str = "replogle") -> Path:
    """Write a split of one or more data sets that are all the screen's file."""
    names = datasets.split()
    files, training = ("\n".join(f"{name} = {value}" for name in names) for value in (f'"{screen.h5ad}"', '"train"'))
    path = tmp_path / "split.toml"
    path.write_text(f"[datasets]\n{files}\n\n[training]\n{training}\n\n[zeroshot]\n\n{body}\n")
    return path


@pytest.fixture
def genes(screen):
    return sorted(set(screen.gene) - {CONTROL})


def test_a_split_as_the_authors_write_them_with_one_list_for_every_line_is_sound(screen, loaded, tmp_path, genes):
    lists = f"val = {genes[:2]}\ntest = {genes[2:8]}\n"
    body = f'[fewshot]\n[fewshot."replogle.hepg2"]\n{lists}\n# k562, rpe1 are for training\n'
    split = toml(screen, tmp_path, body)
    assert_sound(screen, split, loaded(split))


def test_plain_state_keeps_to_the_split_in_the_same_way(screen, loaded, tmp_path):
    split = write_split(screen.h5ad, "k562", output=tmp_path / "split.toml")
    assert_sound(screen, split.path, loaded(split.path, rag="none"))


def test_two_lines_held_out_at_once_are_both_kept_back(screen, loaded, tmp_path, genes):
    body = "\n".join(
        f'[fewshot."replogle.{line}"]\nval = {genes[:1]}\ntest = {genes[start : start + 3]}\n'
        for line, start in (("hepg2", 1), ("rpe1", 4))
    )
    split = toml(screen, tmp_path, body)
    assert_sound(screen, split, loaded(split))


def test_whole_lines_for_validation_and_test_are_kept_back(screen, loaded, tmp_path):
    split = tmp_path / "split.toml"
    lines = '"s.hepg2" = "test"\n"s.rpe1" = "val"'
    split.write_text(f'[datasets]\ns = "{screen.h5ad}"\n[training]\ns = "train"\n[zeroshot]\n{lines}\n[fewshot]\n')
    assert_sound(screen, split, loaded(split))


def test_the_check_sees_a_checkpoint_chosen_on_the_test_set(screen, loaded, tmp_path, genes, capfd):
    split = toml(screen, tmp_path, f'[fewshot."replogle.hepg2"]\nval = []\ntest = {genes[:4]}\n')
    found = leaks(screen, split, loaded(split))
    assert screen.conditions(found["val"]) == {("hepg2", gene) for gene in genes[:4]}
    assert found["train"] == set()
    assert "on the test set" in " ".join(capfd.readouterr().err.split())


def test_the_check_sees_a_perturbation_that_is_in_both_lists(screen, loaded, tmp_path, genes, capfd):
    split = toml(screen, tmp_path, f'[fewshot."replogle.hepg2"]\nval = {genes[3:5]}\ntest = {genes[:4]}\n')
    found = leaks(screen, split, loaded(split))
    assert screen.conditions(found["val"]) == {("hepg2", genes[3])}
    assert "in both lists" in " ".join(capfd.readouterr().err.split())


def test_one_file_under_two_names_would_leak_and_is_refused(screen, refused, loaded, tmp_path, genes, monkeypatch):
    from state_rag.datasets.splitting import split_check

    body = f'[fewshot."one.hepg2"]\nval = {genes[:2]}\ntest = {genes[2:8]}\n'
    split = toml(screen, tmp_path, body, "one two")
    message = refused("tx", "train", "rag=ptrag", *REPLOGLE_COLUMNS, f"data.kwargs.toml_config_path={split}")
    assert "'one' and 'two' are the same file" in message
    monkeypatch.setattr(split_check, "_refuse_leaks", lambda *_: None)
    found = leaks(screen, split, loaded(split))
    assert screen.conditions(found["train"]) == {("hepg2", gene) for gene in genes[2:8]}
