from pathlib import Path

import numpy as np
import pytest

from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.table import Embeddings

SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared_file(name):
    """Return a file of real data, or skip the test that asks for it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


@pytest.fixture(scope="session")
def genept_path():
    return shared_file("genept_adamson86.csv.gz")


@pytest.fixture(scope="session")
def summaries_path():
    return shared_file("gene_summaries.json")


@pytest.fixture(scope="session")
def genept(genept_path):
    return read_embeddings(genept_path, progress=False)


@pytest.fixture
def table():
    vectors = np.array([[1.0, 0.0, 2.0], [0.5, 0.5, 0.0], [0.0, -1.0, 1.0]], np.float32)
    return Embeddings(("AARS", "HARS", "COPB1"), vectors, "memory", {"source_file": "memory"})
