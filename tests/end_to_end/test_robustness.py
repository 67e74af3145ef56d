"""Bad input, damaged files and a full disk end in one clear error and leave no half file under a final name."""

import shutil
from pathlib import Path

import anndata
import pytest
import torch

from tests.end_to_end.commands import files_below, run, the_error

pytestmark = pytest.mark.slow


def fails(arguments, cwd, **options):
    """Run a command that must fail with one error; return its message."""
    finished = run(arguments, cwd, check=False, **options)
    assert finished.returncode == 1, finished.stderr[-3000:]
    return the_error(finished.stderr)


def assert_readable(folder):
    """Every file that STATE or we read back is whole."""
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.suffix in (".ckpt", ".torch", ".pt"):
            torch.load(path, weights_only=False)
        elif path.suffix == ".h5ad":
            anndata.read_h5ad(path)
        assert not path.name.startswith("."), f"left behind: {path}"


def test_a_truncated_h5ad_stops_a_training_before_anything_is_written(project, tmp_path):
    whole = project.h5ad.read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.toml").write_text(project.split.read_text().replace(str(project.h5ad), str(tmp_path / "cut.h5ad")))
    before = files_below(tmp_path)
    message = fails(project.train_rag("x", f"data.kwargs.toml_config_path={tmp_path / 'cut.toml'}"), tmp_path)
    assert "cut.h5ad" in message
    assert files_below(tmp_path) == before


def test_an_unknown_preset_is_refused_with_the_list_of_presets(tmp_path):
    finished = run(["tx", "train", "rag=of"], tmp_path, check=False)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert "rag=of is not a preset" in finished.stderr
    assert "rag=ptrag_paper" in finished.stderr


def test_a_switched_off_plugin_leaves_its_flags_unknown(tmp_path):
    finished = run(["tx", "train", "training.rag=true"], tmp_path, env={"STATE_RAG_DISABLE": "1"}, check=False)
    assert finished.returncode != 0
    assert "training.rag" in finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["predict", "infer"])
def test_plain_state_refuses_a_checkpoint_with_retrieval(command, run_copy, project):
    # Without the plugin's commands STATE looks for the run where it was trained.
    folder = run_copy.parent / "runs" / "ptrag"
    shutil.copytree(run_copy, folder)
    arguments = {
        "predict": ["--output-dir", "runs/ptrag", "--predict-only"],
        "infer": ["--model-dir", "runs/ptrag", "--adata", str(project.h5ad), "--pert-col", "gene"],
    }[command]  # fmt: skip
    finished = run(["tx", command, *arguments], run_copy.parent, env={"STATE_RAG_DISABLE": "1"}, check=False)
    assert finished.returncode != 0
    assert "state_rag_format" in finished.stderr
    assert not (folder / "eval_last.ckpt").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(share, run_copy, project, refused):
    for path in (run_copy / "checkpoints").iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
    before = files_below(run_copy)
    message = refused("tx", "predict", "--output-dir", run_copy)
    assert "last.ckpt" in message
    assert "damaged" in message
    message = refused(
        "tx", "infer", "--model-dir", run_copy, "--adata", project.h5ad, "--embed-key", "X_hvg", "--pert-col", "gene"
    )
    assert "final.ckpt" in message
    assert files_below(run_copy) == before


def test_training_on_from_a_damaged_checkpoint_is_refused(run_copy, project, refused):
    path = run_copy / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:5000])
    config = (run_copy / "config.yaml").read_text()
    message = refused(*project.train_rag("copy", "training.max_steps=18", f"output_dir={run_copy.parent}"))
    assert "last.ckpt" in message
    assert "damaged" in message
    assert path.stat().st_size == 5000
    assert (run_copy / "config.yaml").read_text() == config


def test_training_on_by_another_method_is_refused(run_copy, plain_pair, project, refused):
    config = (run_copy / "config.yaml").read_text()
    message = refused(*project.train_rag("copy", "rag=vanilla", f"output_dir={run_copy.parent}"))
    assert "'differentiable'" in message
    assert "'vanilla'" in message
    assert (run_copy / "config.yaml").read_text() == config
    assert "'none'" in refused(*project.train_rag("plain", f"output_dir={plain_pair['with'].parent}"))


@pytest.mark.parametrize(("content", "said"), [(None, "does not exist"), (b"PK half", "is damaged")])
def test_starting_from_an_unusable_checkpoint_is_refused(content, said, project, refused, tmp_path):
    path = tmp_path / "start.ckpt"
    if content is not None:
        path.write_bytes(content)
    message = refused(*project.train_rag("x", f"+model.kwargs.init_from={path}", f"output_dir={tmp_path / 'runs'}"))
    assert f"model.kwargs.init_from={path} {said}" in message
    assert not (tmp_path / "runs").exists()


def test_a_missing_checkpoint_is_refused_with_those_that_exist(run_copy, refused):
    message = refused("tx", "predict", "--output-dir", run_copy, "--checkpoint", "step=9.ckpt")
    assert "step=9.ckpt" in message
    assert "best.ckpt, final.ckpt, last.ckpt" in message


def test_a_missing_split_points_to_the_toml_flag(run_copy, refused, tmp_path):
    config = run_copy / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text(
        "".join("    toml_config_path: /gone/split.toml\n" if "toml_config_path" in line else line for line in lines)
    )
    (run_copy / "split.toml").unlink()  # as in a run of before runs kept their split
    message = refused("tx", "predict", "--output-dir", run_copy)
    assert "/gone/split.toml" in message
    assert "--toml" in message
    assert "/also/gone.toml" in refused("tx", "predict", "--output-dir", run_copy, "--toml", "/also/gone.toml")


@pytest.mark.parametrize("flag", ["--output-dir", "--model-dir"])
def test_a_folder_without_a_run_is_refused(flag, tmp_path, refused, project):
    rest = ["--adata", project.h5ad] if flag == "--model-dir" else []
    message = refused("tx", "infer" if rest else "predict", flag, tmp_path, *rest)
    assert flag in message


def test_infer_lists_close_spellings_of_unknown_perturbations(run_copy, project, refused, tmp_path):
    (tmp_path / "more.tsv").write_text("perturbation\tnum_cells\nRIBOSM01\t3\nQQQQ\t3\n")
    base = [
        "tx",
        "infer",
        "--model-dir",
        run_copy,
        "--adata",
        project.h5ad,
        "--embed-key",
        "X_hvg",
        "--pert-col",
        "gene",
    ]
    output = ["--output", tmp_path / "out.h5ad"]
    message = refused(*base, *output, "--tsv", tmp_path / "more.tsv")
    assert "RIBOSM01 -> RIBOSM1" in message
    assert "QQQQ" in message
    assert "--genept-path" in message
    (tmp_path / "odd.tsv").write_text("gene,n\nA,3\n")
    assert "num_cells" in refused(*base, *output, "--tsv", tmp_path / "odd.tsv")
    assert "gone.tsv" in refused(*base, *output, "--tsv", tmp_path / "gone.tsv")
    assert "scrambled" in refused(*base, *output, "--control-pert", "scrambled")
    assert not (tmp_path / "out.h5ad").exists()


def test_infer_refuses_wrong_columns_and_files(run_copy, project, refused, tmp_path):
    base = ["tx", "infer", "--model-dir", run_copy, "--embed-key", "X_hvg"]
    assert "gone.h5ad" in refused(*base, "--adata", tmp_path / "gone.h5ad", "--pert-col", "gene")
    assert "target_gene" in refused(*base, "--adata", project.h5ad, "--pert-col", "target_gene")
    message = refused(*base[:4], "--embed-key", "X_pca", "--adata", project.h5ad, "--pert-col", "gene")
    assert "X_pca" in message
    assert "X_hvg" in message


def test_evaluating_a_plain_run_by_embeddings_needs_some(plain_pair, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(plain_pair["with"], tmp_path / "plain")
    message = refused("tx", "predict", "--output-dir", folder, "--eval-genept-pert")
    assert "--genept-path" in message or "genept_path" in message
    assert "10833191" in message
    assert not (folder / "eval_last.ckpt").exists()


@pytest.mark.parametrize("value", ["0", "-3"])
def test_predicting_no_batches_is_refused(value, run_copy, refused):
    assert "--max-batches" in refused("tx", "predict", "--output-dir", run_copy, "--max-batches", value)


@pytest.mark.parametrize("limit", [1_000, 8_000, 1_000_000])
def test_a_full_disk_stops_a_training_and_leaves_no_half_file(limit, project, tmp_path):
    message = fails(project.train_rag("full"), tmp_path, file_limit=limit)
    assert "disk is full" in message
    assert_readable(tmp_path)
    assert not (tmp_path / "runs" / "full").exists()


def test_a_disk_that_fills_up_later_leaves_the_old_checkpoints_whole(run_copy, project):
    before = {path.name: path.read_bytes() for path in (run_copy / "checkpoints").iterdir()}
    arguments = project.train_rag("copy", "training.max_steps=18", f"output_dir={run_copy.parent}")
    assert "disk is full" in fails(arguments, run_copy.parent, file_limit=1_000_000)
    assert {path.name: path.read_bytes() for path in (run_copy / "checkpoints").iterdir()} == before
    assert_readable(run_copy)


@pytest.mark.parametrize("limit", [10_000, 60_000])
def test_a_full_disk_stops_a_prediction_and_leaves_no_half_file(limit, run_copy):
    message = fails(["tx", "predict", "--output-dir", str(run_copy)], run_copy.parent, file_limit=limit)
    assert "disk is full" in message
    assert not list((run_copy / "eval_last.ckpt").glob("*")) or limit > 50_000
    assert_readable(run_copy)


@pytest.mark.parametrize("suffix", ["h5ad", "npy"])
def test_a_full_disk_stops_a_simulation_and_leaves_no_half_file(suffix, run_copy, project):
    arguments = [
        "tx", "infer", "--model-dir", str(run_copy), "--adata", str(project.h5ad), "--embed-key", "X_hvg",
        "--pert-col", "gene", "--output", f"sim.{suffix}", "--max-cells", "6",
    ]  # fmt: skip
    message = fails(arguments, run_copy.parent, file_limit=20_000)
    assert "sim" in message
    assert "disk" in message
    assert {path.name for path in run_copy.parent.iterdir()} == {"copy"}
