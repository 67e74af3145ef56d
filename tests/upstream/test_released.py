"""A folder in the layout of the released models, made from the authors' own weights."""

import pickle
import shutil
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from state_rag.errors import StateRagError
from state_rag.files import sha256
from state_rag.model import RagStateTransition
from state_rag.upstream.released import import_release, read_released_knowledge
from tests import parity
from tests.end_to_end.commands import files_below, run

NAME = "differentiable_causal"

pytestmark = pytest.mark.skipif(
    NAME not in parity.fixture_names(), reason=f"no parity fixture {NAME} in {parity.FOLDER}"
)


def make_screen(folder, genes):
    """A tiny h5ad in the authors' columns, and a split that tests three perturbations of the second line."""
    rng = np.random.default_rng(0)
    rows = [
        (line, name, f"b{cell % 3}")
        for line in ("k562", "hepg2")
        for name in ["non-targeting"] * 3 + [f"GENE{row}" for row in range(8)]
        for cell in range(8)
    ]
    obs = pd.DataFrame(rows, columns=["cell_line", "gene", "gem_group"], dtype="category")
    obs.index = [f"c{row}" for row in range(len(obs))]
    values = rng.gamma(1.0, 1.0, (len(obs), genes)).astype(np.float32)
    data = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{row}" for row in range(genes)]))
    data.obsm["X_hvg"] = values
    data.write_h5ad(folder / "screen.h5ad")
    (folder / "split.toml").write_text(
        f'[datasets]\nscreen = "{folder / "screen.h5ad"}"\n[training]\nscreen = "train"\n[zeroshot]\n'
        '[fewshot."screen.hepg2"]\nval = ["GENE3"]\ntest = ["GENE0", "GENE1", "GENE2"]\n'
    )


def make_release(folder, fixture):
    """Write what the authors' fork leaves behind after training."""
    from cell_load.data_modules import PerturbationDataModule

    folder.mkdir()
    data = {
        "toml_config_path": "/home/authors/split.toml",
        "embed_key": "X_hvg",
        "output_space": "gene",
        "pert_col": "gene",
        "cell_type_key": "cell_line",
        "batch_col": "gem_group",
        "control_pert": "non-targeting",
        "num_workers": 0,
        "barcode": True,
    }
    make_screen(folder.parent, fixture.settings["model_kwargs"]["input_dim"])
    here = {**data, "toml_config_path": str(folder.parent / "split.toml")}
    module = PerturbationDataModule(**here, batch_size=2, cell_sentence_len=8)
    with open(folder / "data_module.torch", "wb") as stream:
        module.save_state(stream)
    state = torch.load(folder / "data_module.torch", weights_only=False)
    torch.save({**state, "toml_config_path": data["toml_config_path"]}, folder / "data_module.torch")
    module.setup()
    embeddings = fixture.tensor("inputs/embeddings")
    table = {"non-targeting": torch.zeros(embeddings.shape[1])}
    table |= {f"GENE{row}": vector for row, vector in enumerate(embeddings)}
    torch.save(table, folder / "pert_onehot_map.pt")
    rows = {f"GENE{row}": row + 1 for row in range(len(embeddings))} | {"non-targeting": 0}
    (folder / "train_name_to_idx.pkl").write_bytes(pickle.dumps(rows))
    (folder / "var_dims.pkl").write_bytes(pickle.dumps({**module.get_var_dims(), "pert_dim": embeddings.shape[1]}))
    kwargs = fixture.settings["model_kwargs"]
    sizes = ("cell_set_len", "hidden_dim", "transformer_backbone_kwargs", "batch_encoder", "dropout", "loss")
    named = ("input_dim", "output_dim", "pert_dim", "gene_dim", "hvg_dim")
    config = {
        "output_dir": "/home/authors/runs",
        "name": "ptrag",
        "data": {"name": "PerturbationDataModule", "kwargs": data},
        "model": {"name": "state", "kwargs": {key: kwargs[key] for key in kwargs if key not in named}},
        "training": {"train_seed": 42, "lr": 1e-3, **fixture.settings["flags"]},
    }
    assert set(sizes) <= set(config["model"]["kwargs"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    weights = {key.removeprefix("weights/"): fixture.tensor(key) for key in fixture.arrays if "weights/" in key}
    checkpoint = {
        "state_dict": weights,
        "hyper_parameters": {**kwargs, **fixture.settings["flags"]},
        "pytorch-lightning_version": "2.5.0",
        "epoch": 1,
        "global_step": 50_001,
    }
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def fixture():
    return parity.load(NAME)


@pytest.fixture(scope="module")
def release(tmp_path_factory, fixture):
    folder = tmp_path_factory.mktemp("release") / "PT-RAG"
    make_release(folder, fixture)
    return folder


@pytest.fixture(scope="module")
def imported(release):
    return import_release(release, release.with_name("imported"))


def test_an_imported_model_predicts_what_the_authors_does(imported, fixture):
    model = RagStateTransition.load_from_checkpoint(imported / "checkpoints" / "last.ckpt").eval()
    assert list(model.knowledge.names) == [f"GENE{row}" for row in range(len(fixture.tensor("inputs/embeddings")))]
    model.selector.select = partial(model.selector.select, noise=fixture.tensor("inputs/gumbel_noise"))
    with torch.no_grad():
        prediction = model(fixture.batch())
    expected = fixture.tensor("outputs/pred")
    assert (prediction - expected).abs().max() < 1e-4 * expected.abs().max()


def test_an_import_keeps_the_settings_and_states_what_the_authors_code_always_does(imported):
    training = yaml.safe_load((imported / "config.yaml").read_text())["training"]
    assert (training["topk_rag"], training["gumbel_sparsity_weight"]) == (6, 0.1)
    assert (training["rag_fusion"], training["rag_score_scale"], training["rag_inference"]) == (
        "replace",
        "batch",
        "sample",
    )


def test_predictions_beside_the_release_are_no_checkpoint(release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "release")
    (folder / "eval_last.ckpt").mkdir()
    import_release(folder, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "eval_last.ckpt").exists()


def test_an_import_leaves_the_release_as_it_is_and_no_temporary_folder(release, tmp_path):
    before = {name: sha256(release / name) for name in files_below(release)}
    import_release(release, tmp_path / "run")
    assert {name: sha256(release / name) for name in files_below(release)} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_an_imported_run_is_predicted_by_states_own_command(imported, release, tmp_path):
    folder = shutil.copytree(imported, tmp_path / "run")
    toml = str(release.parent / "split.toml")
    run(["tx", "predict", "--output-dir", str(folder), "--toml", toml, "--profile", "minimal"], tmp_path)
    results = folder / "eval_last.ckpt"
    pred = anndata.read_h5ad(results / "adata_pred.h5ad")
    assert set(pred.obs["gene"]) == {"GENE0", "GENE1", "GENE2", "non-targeting"}
    assert np.isfinite(pred.X).all()
    table = pd.read_csv(results / "retrieval_info.csv", keep_default_na=False)
    assert set(table["n_retrieved"]) == {0, 6}
    assert set(table["retrieved_perturbations"].str.findall(r"w=(\d\.\d\d)").explode().dropna()) <= {"0.00", "1.00"}


@pytest.mark.parametrize("name", ["config.yaml", "data_module.torch", "pert_onehot_map.pt", "checkpoints/last.ckpt"])
def test_a_release_that_lacks_a_file_is_refused_by_its_name_and_nothing_is_written(name, release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "PT-RAG")
    (folder / name).unlink()
    with pytest.raises(StateRagError, match=name.rpartition("/")[2].replace("last", r"(last|\*)")):
        import_release(folder, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["PT-RAG"]


def test_an_existing_target_is_refused(release, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(StateRagError, match="exists already"):
        import_release(release, tmp_path / "run")


def test_a_plain_run_is_not_imported(release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "plain")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["training"] = {"train_seed": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(StateRagError, match="plain STATE"):
        import_release(folder, tmp_path / "run")


def test_an_index_that_would_run_code_is_refused(release, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("ran",))

    folder = shutil.copytree(release, tmp_path / "PT-RAG")
    (folder / "train_name_to_idx.pkl").write_bytes(pickle.dumps({"GENE0": Harmful()}))
    with pytest.raises(StateRagError, match="print"):
        import_release(folder, tmp_path / "run")


def test_a_name_without_a_vector_is_refused(release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "PT-RAG")
    (folder / "train_name_to_idx.pkl").write_bytes(pickle.dumps({"GENE0": 0, "GHOST": 1}))
    with pytest.raises(StateRagError, match="GHOST"):
        read_released_knowledge(folder, "non-targeting")


def test_the_control_and_rows_of_zeros_are_no_candidates(release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "PT-RAG")
    table = torch.load(folder / "pert_onehot_map.pt", weights_only=True)
    table["GENE1"] = torch.zeros_like(table["GENE1"])
    torch.save(table, folder / "pert_onehot_map.pt")
    names = read_released_knowledge(folder, "non-targeting").names
    assert "non-targeting" not in names
    assert "GENE1" not in names
    assert len(names) == len(table) - 2
