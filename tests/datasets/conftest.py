import pytest

from tests.datasets.helpers import SHARED, SMALL, make_adata


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    from state_rag.datasets.simulation.simulate import simulate_screen

    return simulate_screen(tmp_path_factory.mktemp("screen"), seed=3, **SMALL)


@pytest.fixture(scope="session")
def shared_data():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real data were not tried")
    return SHARED


@pytest.fixture
def adata():
    return make_adata()
