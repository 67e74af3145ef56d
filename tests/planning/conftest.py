import pytest

from state_rag.engine.folder import read_run


@pytest.fixture(scope="module")
def folder(evidence_run):
    return evidence_run[1]


@pytest.fixture(scope="module")
def run(folder):
    return read_run(folder)
