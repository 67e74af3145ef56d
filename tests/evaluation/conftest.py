import pytest

from tests.evaluation.made_up import make_run, make_screen


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    return make_screen(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="session")
def runs(screen, tmp_path_factory):
    """Four runs of falling accuracy."""
    folder = tmp_path_factory.mktemp("runs")
    accuracies = {"best": 0.95, "good": 0.7, "poor": 0.4, "none": 0.0}
    return {name: make_run(folder / name, screen, accuracy=value) for name, value in accuracies.items()}
