"""What several of these tests share: a test set of two cell lines."""

import pytest

from state_rag.datasets.simulation.simulate import simulate_screen
from tests.end_to_end.commands import SCREEN


@pytest.fixture(scope="session")
def two_lines(tmp_path_factory):
    """A split whose test set holds two cell lines."""
    folder = tmp_path_factory.mktemp("lines")
    screen = simulate_screen(folder, **{**SCREEN, "n_perturbations": 12, "n_modules": 4})
    split = folder / "split.toml"
    split.write_text(
        f'[datasets]\nscreen = "{screen.h5ad}"\n[training]\nscreen = "train"\n'
        '[zeroshot]\n"screen.hepg2" = "test"\n"screen.rpe1" = "test"\n[fewshot]\n'
    )
    return split
