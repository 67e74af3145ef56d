import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from state_rag.datasets.splitting.split_toml import read_split
from state_rag.experiments import fingerprint as module
from state_rag.experiments.fingerprint import PIECE, UNUSED, fingerprint, sample_digest
from state_rag.settings import RagSettings


@pytest.fixture
def digest(small_screen, job_config):
    """Return a function from a preset and values of dotted keys to the fingerprint of the job."""
    split = read_split(small_screen / "split.toml")
    embeddings = small_screen / "screen" / "embeddings.safetensors"

    def of(preset, split=split, embeddings=embeddings, prediction=None, **values):
        config = job_config(f"rag={preset}", **values)
        return fingerprint(config, RagSettings.from_mapping(config["training"]), split, embeddings, prediction or {})

    return of


@pytest.mark.parametrize(
    "changed",
    [{"name": "x"}, {"output_dir": "y"}, {"use_wandb": False}, {"wandb": {}}, {"data__kwargs__num_workers": 3},
     {"training__rag_watch": ["A"]}, {"training__check_gradients": True}],
)  # fmt: skip
def test_where_and_how_a_job_is_run_makes_no_difference(digest, changed):
    assert digest("ptrag", **changed) == digest("ptrag")


@pytest.mark.parametrize(
    ("preset", "changed", "same"),
    [
        ("none", {"training__topk_rag": 2}, True),
        ("genept", {"training__topk_rag": 2}, True),
        ("genept", {"training__rag_inference": "sample"}, True),
        ("vanilla", {"training__topk_rag": 2}, False),
        ("vanilla", {"training__gumbel_temperature": 1}, True),
        ("hidden", {"training__rag_weight": 1}, False),
        ("ptrag", {"training__rag_weight": 1}, True),
        ("ptrag", {"training__gumbel_sparsity_weight": 1}, False),
        ("ptrag", {"training__lr": 1}, False),
        ("ptrag", {"training__train_seed": 1}, False),
        ("ptrag", {"model__kwargs__hidden_dim": 24}, False),
    ],
)
def test_a_flag_counts_where_the_method_looks_at_it(digest, preset, changed, same):
    assert (digest(preset, **changed) == digest(preset)) == same


def test_the_sparsity_weight_counts_only_with_the_sparsity_term(digest):
    without = digest("ptrag", training__gumbel_sparsity_loss=False)
    assert digest("ptrag", training__gumbel_sparsity_loss=False, training__gumbel_sparsity_weight=1) == without
    assert digest("ptrag") != without


def test_every_method_is_a_job_of_its_own_however_it_is_spelled(digest):
    presets = [digest(preset) for preset in ("none", "genept", "vanilla", "hidden", "ptrag")]
    assert len(set(presets)) == 5
    assert digest("none", training__use_genept=True) == digest("genept")


def test_files_count_by_content(digest, small_screen, tmp_path):
    moved = tmp_path / "moved.h5ad"
    moved.write_bytes((small_screen / "screen" / "screen.h5ad").read_bytes())
    split = read_split(small_screen / "split.toml")
    elsewhere = replace(split, datasets=dict.fromkeys(split.datasets, str(moved)))
    assert digest("ptrag", split=elsewhere) == digest("ptrag")
    with open(moved, "r+b") as stream:
        stream.seek(2000)
        stream.write(b"x")
    assert digest("ptrag", split=elsewhere) != digest("ptrag")
    (lists,) = split.fewshot.values()
    fewer = replace(split, fewshot={key: {**lists, "test": lists["test"][1:]} for key in split.fewshot})
    assert digest("ptrag", split=fewer) != digest("ptrag")
    assert digest("ptrag", embeddings=moved) != digest("ptrag")
    assert digest("ptrag", prediction={"checkpoint": "best.ckpt"}) != digest(
        "ptrag", prediction={"checkpoint": "last.ckpt"}
    )


def test_the_names_beside_an_array_of_embeddings_count_with_it(tmp_path):
    np.save(tmp_path / "base.npy", np.eye(2))
    alone = sample_digest(tmp_path / "base.npy")
    (tmp_path / "base.names.txt").write_text("A\nB\n")
    named = sample_digest(tmp_path / "base.npy")
    (tmp_path / "base.names.txt").write_text("B\nA\n")
    assert len({alone, named, sample_digest(tmp_path / "base.npy")}) == 3


def test_another_version_is_another_job(digest, monkeypatch):
    before = digest("ptrag")
    monkeypatch.setattr(module, "version", lambda package: "9")
    assert digest("ptrag") != before


def test_a_small_file_is_read_whole(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"content")
    assert sample_digest(path) == hashlib.sha256(b"7" + b"content").hexdigest()


def test_of_a_large_file_ends_and_places_between_are_read(tmp_path):
    size = 30 * PIECE + 5
    path = tmp_path / "large"
    with open(path, "wb") as stream:
        stream.truncate(size)
    before = sample_digest(path)
    for place, noticed in ((0, True), (size - 1, True), (size // 2, False), ((size - PIECE) // 9 + 10, True)):
        with open(path, "r+b") as stream:
            stream.seek(place)
            stream.write(b"x")
        assert (sample_digest(path) != before) == noticed
        with open(path, "r+b") as stream:
            stream.seek(place)
            stream.write(b"\0")


def test_every_flag_that_is_said_to_be_unused_exists():
    known = {field.name for field in fields(RagSettings)}
    assert {flag for flags in UNUSED.values() for flag in flags} <= known
