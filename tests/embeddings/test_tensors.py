import json
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.tensors import METADATA_KEY
from state_rag.errors import StateRagError


class Evil:
    def __reduce__(self):
        return os.system, ("echo owned > owned",)


def test_torch_files_are_read_weights_only_and_the_global_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"A": Evil()}, "a.pt")
    with pytest.raises(StateRagError, match=r"a\.pt: refused the pickled global (posix|nt)\.system"):
        read_embeddings("a.pt")
    assert not (tmp_path / "owned").exists()


def test_half_precision_and_gradients_are_no_obstacle(tmp_path):
    torch.save({"A": torch.ones(2, dtype=torch.bfloat16), "B": torch.ones(2, requires_grad=True)}, tmp_path / "a.pt")
    assert read_embeddings(tmp_path / "a.pt").vectors.tolist() == [[1, 1], [1, 1]]
    save_file({"A": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert read_embeddings(tmp_path / "a.safetensors").vectors.tolist() == [[1, 1]]


def test_a_one_hot_map_in_upstreams_format_is_read(tmp_path):
    torch.save({name: row for name, row in zip("ABC", torch.eye(3), strict=True)}, tmp_path / "pert_onehot_map.pt")
    np.testing.assert_array_equal(read_embeddings(tmp_path / "pert_onehot_map.pt").vectors, np.eye(3))


def test_a_torch_file_without_a_dict_is_reported(tmp_path):
    torch.save(torch.ones(2, 2), tmp_path / "a.pt")
    with pytest.raises(StateRagError, match="expected a torch.save'd dict of name -> vector, found Tensor"):
        read_embeddings(tmp_path / "a.pt")


def test_pickled_objects_in_npz_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["A"], dtype=object), embeddings=np.ones((1, 2)))
    with pytest.raises(StateRagError, match=r"array 'names' holds pickled Python objects.*dtype=str"):
        read_embeddings(tmp_path / "a.npz")


def test_npz_names_must_fit_the_matrix(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["A", "B"]), embeddings=np.ones((3, 2)))
    with pytest.raises(
        StateRagError, match=r"'embeddings' has shape \[3, 2\], expected one row for each of the 2 'names'"
    ):
        read_embeddings(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", names=np.array([1, 2]), embeddings=np.ones((2, 2)))
    with pytest.raises(StateRagError, match=r"'names' must be a list of text, found int64"):
        read_embeddings(tmp_path / "a.npz")


def test_a_single_npy_array_is_reported(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(StateRagError, match="expected an .npz archive, found a single .npy array"):
        read_embeddings(tmp_path / "a.npz")


def test_a_matrix_without_names_is_reported(tmp_path):
    save_numpy({"weight": np.ones((3, 2), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(StateRagError, match=r"found weight \(ndarray of shape \[3, 2\]\)"):
        read_embeddings(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "damaged metadata"),
        (json.dumps({"names": ["A"]}), "damaged metadata"),
        (json.dumps({"names": ["A"], "provenance": {}}), r"has shape \[3, 2\], but there are 1 names"),
        (json.dumps({"names": ["A", "B", "A"], "provenance": {}}), "more than once: A"),
    ],
)
def test_damaged_metadata_is_reported(tmp_path, metadata, message):
    save_numpy({"vectors": np.ones((3, 2), np.float32)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: metadata})
    with pytest.raises(StateRagError, match=message):
        read_embeddings(tmp_path / "a.safetensors")
