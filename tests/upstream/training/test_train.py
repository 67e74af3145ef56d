import json

import anndata
import pytest
from omegaconf import OmegaConf

from state_rag.errors import StateRagError
from state_rag.settings import RagSettings
from state_rag.upstream.training.train import (
    is_disk_full,
    keep_metrics,
    nothing_half_written,
    with_attention,
    without_flags,
)
from tests.end_to_end.commands import SCREEN, files_below


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """A finished run that `overwrite=true` would delete."""
    folder = tmp_path / "runs" / "old"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("precious")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def train_refused(refused, project, old_run):
    """Run a training that must be refused before any work, over an existing run; return the message."""

    def run(*overrides, model="rag", data=None):
        arguments = project.train_rag("old", "overwrite=true", *overrides, model=model)
        before = files_below(old_run.parents[1])
        message = refused(*arguments)
        assert files_below(old_run.parents[1]) == before
        assert (old_run / "checkpoints" / "last.ckpt").read_text() == "precious"
        return message

    return run


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.use_genept=false"], ["training.use_genept=false", "Set training.use_genept=true"]),
        (["training.retrieve_than_predict=false"], ["training.retrieve_than_predict=false", "rag=hidden"]),
        (["rag=none", "training.differentiable_rag=true"], ["training.rag=false", "Set training.rag=true"]),
        (["training.differentiable_rag=false", "training.gumbel_sparsity_loss=true"],
         ["training.gumbel_sparsity_loss=true", "differentiable_rag=false"]),
        (["training.topk_rag=24"], ["training.topk_rag=24", "24 perturbations", "training.topk_rag=23"]),
        (["training.topk_rag=0"], ["training.topk_rag=0", "at least 1"]),
        (["training.topk_rag=many"], ["training.topk_rag='many'", "whole number"]),
        (["training.rag_fusion=mix"], ["training.rag_fusion=mix", "replace, residual"]),
        (["training.rag_inference=gumbel"], ["training.rag_inference=gumbel", "expected, sample, argmax"]),
        (["training.genept_missing=zeros"], ["training.genept_missing=zeros", "drop, error"]),
        (["training.gumbel_temperature=0"], ["training.gumbel_temperature=0", "above 0"]),
        (["training.genept_path=absent.npz"], ["absent.npz"]),
        (["data.kwargs.toml_config_path=absent.toml"], ["absent.toml"]),
        (["data.kwargs.pert_col=perturbation"], ["perturbation", "gene"]),
        (["data.kwargs.cell_type_key=line"], ["line", "cell_line"]),
        (["data.kwargs.batch_col=plate"], ["plate", "gem_group"]),
        (["data.kwargs.control_pert=DMSO_TF"], ["DMSO_TF", "non-targeting"]),
        (["data.kwargs.embed_key=X_pca"], ["X_pca", "X_hvg"]),
        (["+data.kwargs.perturbation_features_file=x.pt"], ["perturbation_features_file", "training.genept_path"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_before_the_old_run_is_deleted(overrides, said, train_refused):
    message = train_refused(*overrides)
    assert all(part in message for part in said), message


def test_retrieval_in_another_model_is_refused(refused, old_run):
    message = refused("tx", "train", "training.rag=true", "model=perturb_mean", "overwrite=true", "name=old")
    assert "model.name=perturb_mean" in message
    assert old_run.exists()


def test_the_largest_possible_k_is_not_refused(project, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    message = refused(*project.train_rag("x", "training.topk_rag=23", "training.genept_path=absent.npz"))
    assert "absent.npz" in message


def test_a_perturbation_to_watch_that_is_unknown_is_refused_with_close_spellings(train_refused, project):
    name = project.split.read_text().split("test = [")[1].split('"')[1]
    message = train_refused(f"training.rag_watch=[{name}x]")
    assert f"training.rag_watch names '{name}x'" in message
    assert f"-> {name}" in message


def test_perturbations_to_watch_are_a_list(train_refused):
    assert "training.rag_watch='WARS'" in train_refused("training.rag_watch=WARS")


def test_without_any_embeddings_the_ways_of_getting_them_are_listed(train_refused, monkeypatch):
    message = train_refused("training.genept_path=null")
    for way in ("training.genept_path", "STATE_RAG_GENEPT", "10833191", "json"):
        assert way in message


def test_embeddings_of_other_genes_are_refused(train_refused, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("gene,a,b\nTP53,1,0\nMYC,0,1\n")
    message = train_refused(f"training.genept_path={path}")
    assert str(path) in message
    assert "none of the 24 perturbations" in message


def test_perturbations_without_embeddings_are_refused_on_request(gappy_project, refused, old_run):
    message = refused(
        *gappy_project.train_rag("old", "overwrite=true", "training.genept_missing=error", "training.topk_rag=4")
    )
    missing = json.loads((gappy_project.folder / "screen" / "truth.json").read_text())["missing_embedding"]
    assert f"3 of {SCREEN['n_perturbations']} perturbations" in message
    assert all(name in message for name in missing)
    assert (old_run / "checkpoints" / "last.ckpt").exists()


def test_a_truncated_h5ad_is_refused(train_refused, project, tmp_path):
    whole = project.h5ad.read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.toml").write_text(project.split.read_text().replace(str(project.h5ad), str(tmp_path / "cut.h5ad")))
    message = train_refused(f"data.kwargs.toml_config_path={tmp_path / 'cut.toml'}")
    assert str(tmp_path / "cut.h5ad") in message


def test_a_missing_h5ad_is_refused(train_refused, project, tmp_path):
    (tmp_path / "gone.toml").write_text(project.split.read_text().replace("screen.h5ad", "gone.h5ad"))
    assert "gone.h5ad" in train_refused(f"data.kwargs.toml_config_path={tmp_path / 'gone.toml'}")


def test_a_split_that_names_unknown_perturbations_is_refused(train_refused, project, tmp_path):
    text = project.split.read_text()
    known = text.split("test = [")[1].split('"')[1]
    (tmp_path / "typo.toml").write_text(text.replace(f'"{known}"', f'"{known}X"'))
    message = train_refused(f"data.kwargs.toml_config_path={tmp_path / 'typo.toml'}")
    assert f"{known}X" in message
    assert known in message.replace(f"{known}X", "")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_with_an_empty_part_is_refused(part, train_refused, project, tmp_path):
    lines = f'[datasets]\nscreen = "{project.h5ad}"\n'
    if part == "test":
        lines += '[training]\nscreen = "train"\n[zeroshot]\n[fewshot]\n'
    else:
        zeroshot = "\n".join(f'"screen.{line}" = "test"' for line in SCREEN["lines"])
        lines += f"[training]\n[zeroshot]\n{zeroshot}\n[fewshot]\n"
    (tmp_path / "empty.toml").write_text(lines)
    message = train_refused(f"data.kwargs.toml_config_path={tmp_path / 'empty.toml'}")
    assert part in message


def test_a_split_whose_test_perturbations_have_no_embedding_is_refused(train_refused, project, tmp_path):
    from state_rag.embeddings.readers import read_embeddings
    from state_rag.embeddings.writers import write_embeddings

    text = project.split.read_text()
    test = {name for name in text.split("test = [")[1].split('"')[1::2]}
    table = read_embeddings(project.embeddings, progress=False)
    write_embeddings(tmp_path / "few.safetensors", table.subset([name for name in table.names if name not in test]))
    message = train_refused(f"training.genept_path={tmp_path / 'few.safetensors'}", "training.topk_rag=2")
    assert "No test perturbation" in message


def test_a_perturbation_column_of_numbers_is_refused_or_read_but_never_a_traceback(train_refused, project, tmp_path):
    adata = anndata.read_h5ad(project.h5ad)
    adata.obs["gene"] = range(adata.n_obs)
    adata.write_h5ad(tmp_path / "numbers.h5ad")
    split = tmp_path / "numbers.toml"
    split.write_text(project.split.read_text().replace(str(project.h5ad), str(tmp_path / "numbers.h5ad")))
    assert "gene" in train_refused(f"data.kwargs.toml_config_path={split}")


def test_flags_are_taken_out_of_what_plain_state_is_given():
    cfg = OmegaConf.create({"rag": {"rag": False}, "training": {"lr": 1.0, **RagSettings().to_dict()}, "name": "x"})
    assert OmegaConf.to_container(without_flags(cfg)) == {"training": {"lr": 1.0}, "name": "x"}
    assert "rag" in cfg


@pytest.mark.parametrize(("asked", "expected"), [(None, None), ("causal", False), ("bidirectional", True)])
def test_attention_is_changed_in_a_copy_and_only_on_request(asked, expected):
    backbone = {"bidirectional_attention": None}
    cfg = OmegaConf.create({"model": {"kwargs": {"transformer_backbone_kwargs": backbone}}})
    changed = with_attention(cfg, RagSettings(rag_attention=asked))
    assert changed.model.kwargs.transformer_backbone_kwargs.bidirectional_attention is expected
    assert cfg.model.kwargs.transformer_backbone_kwargs.bidirectional_attention is None


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(27, "File too large"), True),
        (RuntimeError("unexpected pos 64 vs 0"), True),
        (OSError(2, "No such file"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert is_disk_full(error) is full
    outer = RuntimeError("while writing")
    outer.__cause__ = error
    assert is_disk_full(outer) is full


def test_a_new_run_folder_without_a_checkpoint_goes_when_the_disk_is_full(tmp_path):
    folder = tmp_path / "new"

    def write_half() -> None:
        folder.mkdir()
        (folder / "config.yaml").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StateRagError, match="incomplete run folder was removed"), nothing_half_written(folder):
        write_half()
    assert not folder.exists()


def test_a_run_folder_that_was_there_before_stays_when_the_disk_is_full(tmp_path):
    folder = tmp_path / "old"
    (folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(StateRagError, match="disk is full"), nothing_half_written(folder):
        raise OSError(28, "No space left on device")
    assert folder.exists()


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ZeroDivisionError), nothing_half_written(tmp_path / "run"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rag=vanilla", ["by the method 'differentiable'", "'vanilla'", "overwrite=true"]),
        ("training.rag_score_similarity=true", ["training.rag_score_similarity=false", "overwrite=true"]),
    ],
)
def test_training_on_by_another_method_or_with_another_selector_is_refused(
    override, said, project, run_copy, refused, monkeypatch
):
    monkeypatch.chdir(run_copy.parent)
    given = ["training.rag=true"] if override.startswith("training") else []
    message = refused(*project.train_rag("copy", f"output_dir={run_copy.parent}", override, *given))
    assert all(part in message for part in said), message


def test_a_run_that_is_trained_already_is_left_as_it_is(project, run_copy, refused, monkeypatch):
    monkeypatch.chdir(run_copy.parent)
    before = files_below(run_copy)
    message = refused(*project.train_rag("copy", f"output_dir={run_copy.parent}"))
    assert "trained to step 12 already" in message
    assert "Raise training.max_steps" in message
    assert files_below(run_copy) == before


def test_what_was_logged_before_training_goes_on_is_set_aside(tmp_path):
    metrics = tmp_path / "version_0" / "metrics.csv"
    metrics.parent.mkdir()
    metrics.write_text("step,train_loss\n1,2.0\n")
    keep_metrics(tmp_path, 12)
    assert metrics.with_name("metrics_to_step_12.csv").read_text() == "step,train_loss\n1,2.0\n"
    assert not metrics.exists()


def test_what_was_set_aside_for_a_step_is_not_replaced_by_what_was_logged_after_it(tmp_path):
    metrics = tmp_path / "version_0" / "metrics.csv"
    metrics.parent.mkdir()
    for text in ("up to step 12", "from step 12 on, and killed"):
        metrics.write_text(text)
        keep_metrics(tmp_path, 12)
    assert metrics.with_name("metrics_to_step_12.csv").read_text() == "up to step 12"


def test_a_training_that_is_refused_keeps_its_metrics_in_place(project, run_copy, refused, monkeypatch):
    monkeypatch.chdir(run_copy.parent)
    before = files_below(run_copy)
    more = ("training.max_steps=24", "training.rag_watch=[NOBODY]")
    refused(*project.train_rag("copy", f"output_dir={run_copy.parent}", *more))
    assert files_below(run_copy) == before


def test_errors_that_name_each_other_as_their_cause_are_no_full_disk():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_disk_full(first)
