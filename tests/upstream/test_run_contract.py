import os

import numpy as np
import pytest

from state_rag.contract.identity import fingerprint, read_identity
from state_rag.errors import StateRagError
from state_rag.settings import RagSettings
from state_rag.upstream.run_contract import check_files
from state_rag.upstream.run_folder import Run
from tests.contract.helpers import reordered, screen

KEYS = ("obsm/X_hvg",)


@pytest.fixture
def trained(tmp_path):
    """A file, and the run and identity of a training on it."""
    path = tmp_path / "cells.h5ad"
    reordered(screen(), np.arange(30), np.arange(15)).write_h5ad(path)
    identity, _ = read_identity([path], KEYS, pert_col="gene", control="ctrl")
    found = Run(tmp_path, {"data": {"kwargs": {"pert_col": "gene", "control_pert": "ctrl"}}}, RagSettings())
    return path, found, identity


def test_the_file_that_was_trained_on_is_not_read_again(trained, monkeypatch):
    path, found, identity = trained
    monkeypatch.setattr("state_rag.upstream.run_contract.read_identity", None)
    check_files(found, identity, [path], refuse=True)


def test_a_file_that_was_exchanged_for_one_of_the_same_size_is_checked(trained):
    path, found, identity = trained
    size = os.path.getsize(path)
    reordered(screen(), np.arange(30), np.arange(15)[::-1]).write_h5ad(path)
    assert os.path.getsize(path) == size
    assert fingerprint(path, KEYS) != identity.files[0].fingerprint
    with pytest.raises(StateRagError, match="in another order"):
        check_files(found, identity, [path], refuse=True)


def test_a_file_without_the_matrix_is_named(trained, tmp_path):
    path, found, identity = trained
    cells = screen()
    del cells.obsm["X_hvg"]
    cells.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(StateRagError, match=r"other\.h5ad: there is no matrix obsm/X_hvg"):
        check_files(found, identity, [path, tmp_path / "other.h5ad"], refuse=True)
