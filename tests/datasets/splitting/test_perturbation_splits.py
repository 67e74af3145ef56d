import json

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from state_rag.datasets.splitting.perturbation_splits import write_perturbation_splits
from state_rag.datasets.splitting.split_check import check_split
from state_rag.datasets.splitting.split_questions import FEW_SHOT, UNSEEN, UNSEEN_BOTH, ZERO_SHOT, questions, told
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.splitting.splits import write_split
from state_rag.errors import StateRagError
from tests.datasets.helpers import load_batches, make_adata

REPLOGLE = {"pert_col": "gene", "cell_type_key": "cell_line", "batch_col": "gem_group", "control_pert": "non-targeting"}
OWN = {"pert_col": "perturbation", "cell_type_key": "cell_type", "batch_col": "batch", "control_pert": "ctrl"}


def file_of(path, conditions, *, controls=8, cells=6):
    """A file with these (line, perturbation) pairs, and controls in every line."""
    lines = sorted({line for line, _ in conditions})
    rows = [(line, "ctrl") for line in lines for _ in range(controls)]
    rows += [condition for condition in conditions for _ in range(cells)]
    obs = pd.DataFrame(rows, columns=["cell_type", "perturbation"], index=[f"c{i}" for i in range(len(rows))])
    obs = obs.assign(batch="1").astype("category")
    values = np.random.default_rng(0).uniform(0, 3, (len(rows), 5)).astype(np.float32)
    adata = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(5)]))
    adata.obsm["X_hvg"] = values
    adata.write_h5ad(path)
    return path


def in_parts(split, conditions):
    """Which part each condition is in, by loops over the lists of the file, as cell-load reads them."""
    said = read_split(split.path)
    (dataset,) = said.datasets
    parts = {}
    for line, name in conditions:
        lists = said.fewshot.get((dataset, line), {"val": [], "test": []})
        parts[line, name] = "test" if name in lists["test"] else "val" if name in lists["val"] else "train"
    return parts


CONDITIONS = st.sets(
    st.tuples(st.sampled_from(["k562", "rpe1"]), st.sampled_from([*"ABCDEFGH", "A+B", "C+D", "E+A", "G+H"])),
    min_size=5,
)


def test_a_line_with_one_perturbation_cannot_have_some_held_out(tmp_path):
    conditions = [("k562", "A"), *(("rpe1", name) for name in "ABCD")]
    with pytest.raises(StateRagError, match="1 perturbations can be held out"):
        write_perturbation_splits(file_of(tmp_path / "a.h5ad", conditions), output=tmp_path / "s.toml", held_out="k562")
    assert not (tmp_path / "s.toml").exists()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conditions=CONDITIONS, share=st.floats(0.05, 0.5), folds=st.integers(2, 4), line=st.booleans(), data=st.data())
def test_no_training_cell_shows_a_held_out_perturbation(conditions, share, folds, line, data, tmp_path):
    h5ad = file_of(tmp_path / "a.h5ad", sorted(conditions), cells=1, controls=1)
    lines = sorted({line for line, _ in conditions})
    how = data.draw(st.sampled_from([{"share": share}, {"folds": folds}, {"pairs": "any"}, {"pairs": "none-seen"}]))
    if line and len(lines) > 1:
        how = {**how, "held_out": data.draw(st.sampled_from(lines))}
    try:
        written = write_perturbation_splits(h5ad, output=tmp_path / "s.toml", **how)
    except StateRagError:
        assume(False)
    again = write_perturbation_splits(h5ad, output=tmp_path / "again.toml", **how)
    for split, other in zip(written, again, strict=True):
        assert split.path.read_text() == other.path.read_text()
        parts = in_parts(split, conditions)
        tested = {name for (_, name), part in parts.items() if part == "test"}
        assert tested == set(split.test)
        for (_, name), part in parts.items():
            if name in tested:
                assert part == "test"
            if part == "train":
                assert not [one for one in tested if set(one.split("+")) <= set(name.split("+"))]
        if "held_out" in how:
            assert "train" not in {part for (where, _), part in parts.items() if where == how["held_out"]}
        assert {"train", "val", "test"} == set(parts.values())


def test_a_share_is_held_out_in_every_line_and_upstreams_loader_trains_on_none_of_it(screen, tmp_path):
    (split,) = write_perturbation_splits(screen.h5ad, output=tmp_path / "s.toml", share=0.25)
    assert (len(split.train), len(split.val), len(split.test), split.aside) == (8, 1, 3, ())
    assert split.lines == ("hepg2", "jurkat", "k562", "rpe1")
    summary = check_split(split, **REPLOGLE, embed_key="X_hvg")
    assert summary.warnings == ()
    module, _ = load_batches(split.path, **REPLOGLE)
    for part, datasets in (
        ("train", module.train_datasets),
        ("val", module.val_datasets),
        ("test", module.test_datasets),
    ):
        names = set()
        for subset in datasets:
            cache = subset.dataset.metadata_cache
            names |= {str(cache.pert_categories[code]) for code in cache.pert_codes[subset.indices]}
        assert names - {"non-targeting"} == set(getattr(split, part))
        perturbed = sum(int((~s.dataset.control_mask[s.indices]).sum()) for s in datasets)
        assert summary.cells[part] == perturbed


def test_folds_are_files_of_their_own_and_test_all_perturbations_once(screen, tmp_path):
    written = write_perturbation_splits(screen.h5ad, output=tmp_path / "s.toml", folds=5, seed=2)
    assert [split.path.name for split in written] == [f"s_fold{number}.toml" for number in range(5)]
    tested = [name for split in written for name in split.test]
    everything = set(anndata.read_h5ad(screen.h5ad, backed="r").obs["gene"]) - {"non-targeting"}
    assert sorted(tested) == sorted(everything)
    assert "fold 3 of 5 (from 0), seed 2" in written[3].path.read_text().splitlines()[0]


def test_one_line_is_enough(tmp_path):
    h5ad = file_of(tmp_path / "one.h5ad", [("k562", name) for name in "ABCDEFGHIJ"])
    (split,) = write_perturbation_splits(h5ad, output=tmp_path / "s.toml", share=0.2)
    summary = check_split(split, **OWN, embed_key="X_hvg")
    assert summary.cells == {"train": 42, "val": 6, "test": 12, "control": 8}
    (asked,) = questions(summary.conditions, "ctrl")
    assert asked.name == UNSEEN


def test_a_line_and_perturbations_held_out_together(screen, tmp_path):
    (split,) = write_perturbation_splits(screen.h5ad, output=tmp_path / "s.toml", share=0.25, held_out="hepg2")
    conditions = check_split(split, **REPLOGLE).conditions
    assert not [name for part, line, name in conditions if part == "train" and line == "hepg2"]
    asked = questions(conditions, "non-targeting")
    assert [(question.name, question.lines) for question in asked] == [
        (UNSEEN, ["jurkat", "k562", "rpe1"]),
        (UNSEEN_BOTH, ["hepg2"]),
    ]
    (some,) = write_perturbation_splits(
        screen.h5ad, output=tmp_path / "s.toml", share=0.25, held_out="hepg2", few_shot=0.5
    )
    conditions = check_split(some, **REPLOGLE).conditions
    assert len([name for part, line, name in conditions if part == "train" and line == "hepg2"]) == 6


def test_lists_say_which_are_tested_and_what_contains_them_validates(tmp_path):
    names = ["A", "B", "C", "D", "A+B", "C+D"]
    h5ad = file_of(tmp_path / "a.h5ad", [("k562", name) for name in names])
    (tmp_path / "list.txt").write_text("A\n")
    (split,) = write_perturbation_splits(h5ad, output=tmp_path / "s.toml", test_list=tmp_path / "list.txt")
    assert split.test == ("A",)
    assert split.aside == ("A+B",) or "A+B" in split.val
    assert "A+B" in read_split(split).fewshot["a", "k562"]["val"]
    (tmp_path / "list.json").write_text(json.dumps({"val": ["B"], "test": ["A+B"]}))
    (split,) = write_perturbation_splits(h5ad, output=tmp_path / "s.toml", test_list=tmp_path / "list.json")
    assert (split.val, split.test, split.train) == (("B",), ("A+B",), ("A", "C", "C+D", "D"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"share": 0.0}, "--held-out-perturbations 0: expected a fraction between 0 and 1"),
        ({"share": 0.2, "folds": 3}, "leave --held-out-perturbations, or --folds, out"),
        ({"folds": 3, "pairs": "one-seen"}, "no folds of it. Use both-seen or any"),
        ({"folds": 5}, "--folds 5: expected from 2 to 4"),
        ({"pairs": "both"}, "expected one of both-seen"),
        ({"pairs": "any"}, "The data have 0 pairs"),
        ({"share": 0.9}, "None of 4 perturbations is left to train on"),
        ({"held_out": "hepg2"}, "no cell line 'hepg2'"),
        ({"val_fraction": 1.0}, "--val-fraction 1.0"),
        ({"listed": ["AARS1"]}, "close spellings: AARS1 -> AARS"),
        ({"listed": ["AARS"], "pairs": "any"}, "leave one out"),
    ],
)
def test_what_cannot_be_held_out_is_refused_and_nothing_is_written(how, message, tmp_path):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    if listed := how.pop("listed", None):
        (tmp_path / "list.json").write_text(json.dumps(listed))
        how = {**how, "test_list": tmp_path / "list.json"}
    with pytest.raises(StateRagError, match=message):
        write_perturbation_splits(tmp_path / "a.h5ad", output=tmp_path / "s.toml", **how)
    assert not list(tmp_path.glob("*.toml"))


def test_the_only_line_is_not_held_out_as_well(tmp_path):
    h5ad = file_of(tmp_path / "one.h5ad", [("k562", name) for name in "ABCD"])
    with pytest.raises(StateRagError, match="only cell line; leave --held-out out"):
        write_perturbation_splits(h5ad, output=tmp_path / "s.toml", held_out="k562")


def test_a_line_without_controls_is_refused(tmp_path):
    h5ad = file_of(tmp_path / "a.h5ad", [("k562", name) for name in "ABCDE"])
    adata = anndata.read_h5ad(h5ad)
    extra = adata[adata.obs["perturbation"] != "ctrl"].copy()
    extra.obs["cell_type"] = pd.Categorical(["rpe1"] * extra.n_obs)
    anndata.concat([adata, extra], index_unique="-").write_h5ad(h5ad)
    with pytest.raises(StateRagError, match="'rpe1' has no 'ctrl' cells"):
        write_perturbation_splits(h5ad, output=tmp_path / "s.toml")


def test_the_four_questions_are_told_apart(screen, tmp_path):
    def asked(split):
        return [question.name for question in questions(check_split(split, **REPLOGLE).conditions, "non-targeting")]

    few = write_split(screen.h5ad, "hepg2", output=tmp_path / "few.toml")
    zero = write_split(screen.h5ad, "hepg2", output=tmp_path / "zero.toml", few_shot=0)
    (unseen,) = write_perturbation_splits(screen.h5ad, output=tmp_path / "unseen.toml")
    assert [asked(split) for split in (few, zero, unseen)] == [[FEW_SHOT], [ZERO_SHOT], [UNSEEN]]


def test_tested_singles_that_train_in_pairs_are_told():
    conditions = {("train", "k562", "A+B"): 5, ("train", "k562", "C"): 5, ("test", "k562", "A"): 5}
    conditions |= {("test", "k562", "C+D"): 5, ("test", "k562", "C+ctrl"): 5}
    text = told(questions(conditions, "ctrl"))
    assert any("1 one-seen" in line for line in text)
    assert any("NOT wholly unseen, since training has them in pairs: A in A+B" in line for line in text)


@pytest.mark.parametrize(("kind", "number"), [("both-seen", 5), ("one-seen", 8), ("none-seen", 15), ("any", 15)])
def test_pairs_of_real_cells_are_held_out_by_class(kind, number, shared_data, tmp_path):
    adata = anndata.read_h5ad(shared_data / "perturbench_devel.h5ad")
    adata.var.index.name = None
    adata[adata.obs["cell_type"] == "k562"].copy().write_h5ad(tmp_path / "k562.h5ad")
    (split,) = write_perturbation_splits(
        tmp_path / "k562.h5ad", output=tmp_path / "s.toml", pairs=kind, pert_col="condition", share=0.2
    )
    assert len(split.test) == max(1, round(0.2 * number))
    names = {**OWN, "pert_col": "condition", "batch_col": "dataset", "control_pert": "control"}
    (asked,) = questions(check_split(split, **names).conditions, "control")
    assert set(asked.pairs) == {kind} or kind == "any"
    assert sum(asked.pairs.values()) == len(split.test)
    assert not asked.given_away
