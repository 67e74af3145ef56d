import json
from collections import Counter

import anndata
import pytest
import toml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state_rag.datasets.splitting.splits import check_split, read_split, read_test_list, write_split
from state_rag.errors import StateRagError
from tests.datasets.helpers import load_batches, make_adata

REPLOGLE = {"pert_col": "gene", "cell_type_key": "cell_line", "batch_col": "gem_group", "control_pert": "non-targeting"}


@pytest.fixture
def file(tmp_path):
    make_adata().write_h5ad(tmp_path / "mine.h5ad")
    return tmp_path / "mine.h5ad"


def test_the_published_proportions_are_the_default(screen, tmp_path):
    split = write_split(screen.h5ad, "hepg2", output=tmp_path / "s.toml")
    assert (len(split.train), len(split.val), len(split.test)) == (4, 1, 7)
    everything = Counter([*split.train, *split.val, *split.test])
    adata = anndata.read_h5ad(screen.h5ad, backed="r")
    assert everything == Counter(set(adata.obs["gene"].cat.categories) - {"non-targeting"})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(few_shot=st.floats(0, 0.8), val_fraction=st.floats(0, 0.1), seed=st.integers(0, 99))
def test_the_parts_never_overlap_and_none_is_forgotten(screen, tmp_path, few_shot, val_fraction, seed):
    split = write_split(
        screen.h5ad, "rpe1", output=tmp_path / "s.toml", few_shot=few_shot, val_fraction=val_fraction, seed=seed
    )
    assert len({*split.train, *split.val, *split.test}) == 12
    assert len(split.train) + len(split.val) + len(split.test) == 12
    assert len(split.train) == round(few_shot * 12)
    assert split.val
    assert split.test


def test_the_file_is_in_upstream_form_with_an_absolute_path(screen, tmp_path, monkeypatch):
    monkeypatch.chdir(screen.h5ad.parent)
    split = write_split("screen.h5ad", "k562", output=tmp_path / "s.toml")
    content = toml.load(split.path)
    assert content["datasets"] == {"screen": str(screen.h5ad)}
    assert content["training"] == {"screen": "train"}
    assert content["fewshot"] == {"screen.k562": {"val": list(split.val), "test": list(split.test)}}


@pytest.mark.parametrize(
    "odd", ["A+B", "[('Drug X', 0.05, 'uM')]", 'q"uote', "back\\slash", "# hash", "\u03b1-factor", "a,"]
)
def test_names_of_odd_spelling_survive(odd, tmp_path):
    adata = make_adata()
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.rename_categories({"WARS": odd})
    adata.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "l.json").write_text(json.dumps([odd]))
    split = write_split(tmp_path / "a.h5ad", "k562", output=tmp_path / "s.toml", test_list=tmp_path / "l.json")
    assert read_split(split.path).fewshot["a", "k562"]["test"] == [odd]


def test_a_name_that_upstream_would_misread_is_refused(tmp_path):
    adata = make_adata()
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.rename_categories({"WARS": ",a"})
    adata.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "l.json").write_text('[",a"]')
    with pytest.raises(StateRagError, match="misreads some of these names: ,a"):
        write_split(tmp_path / "a.h5ad", "k562", output=tmp_path / "s.toml", test_list=tmp_path / "l.json")
    assert not (tmp_path / "s.toml").exists()


def test_the_same_seed_draws_the_same_split(screen, tmp_path):
    first, again, other = (
        write_split(screen.h5ad, "k562", output=tmp_path / f"{i}.toml", seed=s) for i, s in enumerate((0, 0, 1))
    )
    assert first.test == again.test
    assert first.test != other.test


def test_columns_and_control_of_any_data_are_found(file, tmp_path):
    split = write_split(file, "T.cell 1", output=tmp_path / "s.toml", few_shot=0.25, val_fraction=0.25)
    assert (split.pert_col, split.cell_type_col, split.control) == ("perturbation", "cell_type", "ctrl")
    assert len(split.test) == 2


def test_a_text_list_decides_the_test_set(file, tmp_path):
    (tmp_path / "list.txt").write_text("# mine\nWARS\n\nKARS\n")
    split = write_split(file, "k562", output=tmp_path / "s.toml", test_list=tmp_path / "list.txt")
    assert split.test == ("WARS", "KARS")
    assert len(split.val) == 1
    assert {*split.val, *split.train} == {"AARS", "RPL3"}


def test_a_json_list_decides_validation_too(file, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps({"val": ["AARS"], "test": ["WARS"]}))
    split = write_split(file, "k562", output=tmp_path / "s.toml", test_list=tmp_path / "list.json")
    assert (split.val, split.test, split.train) == (("AARS",), ("WARS",), ("KARS", "RPL3"))


def test_the_published_lists_are_read(shared_data):
    val, test = read_test_list(shared_data / "replogle_nadig_split.json")
    assert (len(val), len(test)) == (104, 624)


def test_listed_names_without_cells_in_the_line_are_left_out_with_a_warning(tmp_path, caplog):
    adata = make_adata()
    adata = adata[~((adata.obs["cell_type"] == "k562") & (adata.obs["perturbation"] == "WARS"))].copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "l.json").write_text('["WARS", "KARS"]')
    split = write_split(tmp_path / "a.h5ad", "k562", output=tmp_path / "s.toml", test_list=tmp_path / "l.json")
    assert split.test == ("KARS",)
    assert "1 listed perturbations have no cells in the line" in caplog.text


def test_test_perturbations_that_no_training_cell_shows_are_announced(tmp_path, caplog):
    adata = make_adata()
    adata = adata[(adata.obs["cell_type"] == "k562") | (adata.obs["perturbation"] != "WARS")].copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "l.txt").write_text("WARS\n")
    write_split(tmp_path / "a.h5ad", "k562", output=tmp_path / "s.toml", test_list=tmp_path / "l.txt")
    assert "occur in no other cell line (WARS)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": "hepg2"}, "no cell line 'hepg2'.*T.cell 1, a549, k562"),
        ({"pert_col": "gene"}, "no obs column 'gene'.*batch, cell_type, perturbation"),
        ({"cell_type_col": "line"}, "--cell-type-key"),
        ({"control": "non-targeting"}, "a usual name that is: ctrl"),
        ({"few_shot": 1.0}, "--few-shot 1.0"),
        ({"few_shot": 0.9}, "test list would be empty"),
        ({"few_shot": 0.75}, "test list would be empty"),
        ({"name": "a.b"}, "--name 'a.b'"),
        ({"listed": ["AARS1", "WARS"]}, "1 of 2 names are not in the data .AARS1; close spellings: AARS1 -> AARS"),
        ({"listed": ["ctrl"]}, "names the control 'ctrl'"),
        ({"listed": []}, "names no test perturbation"),
        ({"listed": {"val": ["WARS"], "test": ["WARS"]}}, "are in both lists .WARS"),
        ({"listed": {"test": {"a": 1}}}, "expected a list of names"),
        ({"listed": ["AARS", "KARS", "WARS", "RPL3"]}, "validation list would be empty"),
    ],
)
def test_what_cannot_be_split_is_refused_and_nothing_is_written(changes, message, file, tmp_path):
    arguments = {"held_out": "k562", **changes}
    if "listed" in arguments:
        (tmp_path / "list.json").write_text(json.dumps(arguments.pop("listed")))
        arguments["test_list"] = tmp_path / "list.json"
    with pytest.raises(StateRagError, match=message):
        write_split(file, output=tmp_path / "s.toml", **arguments)
    assert not (tmp_path / "s.toml").exists()


def test_a_line_without_controls_cannot_be_held_out(tmp_path):
    adata = make_adata()
    adata[(adata.obs["cell_type"] != "k562") | (adata.obs["perturbation"] != "ctrl")].copy().write_h5ad(
        tmp_path / "a.h5ad"
    )
    with pytest.raises(StateRagError, match="'k562' has no 'ctrl' cells"):
        write_split(tmp_path / "a.h5ad", "k562", output=tmp_path / "s.toml")


def test_the_only_line_cannot_be_held_out(tmp_path):
    adata = make_adata()
    adata[adata.obs["cell_type"] == "k562"].copy().write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(StateRagError, match="only cell line.*--held-out-perturbations 0.2, or --folds 5"):
        write_split(tmp_path / "a.h5ad", "k562", output=tmp_path / "s.toml")


def test_a_written_split_reads_checks_and_loads_alike(screen, tmp_path):
    split = write_split(screen.h5ad, "jurkat", output=tmp_path / "s.toml")
    assert read_split(split).fewshot["screen", "jurkat"]["test"] == list(split.test)
    summary = check_split(split, **REPLOGLE, embed_key="X_hvg")
    assert summary.test_perturbations == tuple(sorted(split.test))
    assert summary.warnings == ()
    module, _ = load_batches(split.path, **REPLOGLE)
    for part, datasets in (
        ("train", module.train_datasets),
        ("val", module.val_datasets),
        ("test", module.test_datasets),
    ):
        perturbed = sum(int((~s.dataset.control_mask[s.indices]).sum()) for s in datasets)
        assert summary.cells[part] == perturbed
