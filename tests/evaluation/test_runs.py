import shutil

import pytest
import yaml

from state_rag.errors import StateRagError
from state_rag.evaluation.runs import feature_names, find_run
from tests.evaluation.made_up import CONTROL


def test_a_run_is_found_by_its_folder_its_predictions_or_a_parent_that_holds_it_alone(runs, tmp_path):
    run = find_run(runs["good"])
    assert run.name == "good"
    assert run.predictions.name == "eval_last.ckpt"
    assert find_run(run.predictions).folder == run.folder
    shutil.copytree(run.folder, tmp_path / "only" / "good")
    assert find_run(tmp_path / "only").folder == tmp_path / "only" / "good"


def test_columns_come_from_the_configuration(runs):
    columns = find_run(runs["good"]).columns
    assert (columns.perturbation, columns.cell_line, columns.control) == ("gene", "cell_line", CONTROL)


def test_several_runs_or_checkpoints_have_to_be_told_apart(runs, tmp_path):
    with pytest.raises(StateRagError, match=r"holds 4 runs \(best"):
        find_run(runs["good"].parent)
    copy = tmp_path / "run"
    shutil.copytree(runs["good"], copy)
    shutil.copytree(copy / "eval_last.ckpt", copy / "eval_best.ckpt")
    with pytest.raises(StateRagError, match=r"best.ckpt, last.ckpt\); choose one with --checkpoint"):
        find_run(copy)
    assert find_run(copy, "best.ckpt").predictions.name == "eval_best.ckpt"


def test_a_run_without_predictions_says_how_to_make_them(runs, tmp_path):
    shutil.copy(runs["good"] / "config.yaml", tmp_path)
    with pytest.raises(StateRagError, match="state tx predict --output-dir"):
        find_run(tmp_path)
    with pytest.raises(StateRagError, match="does not exist"):
        find_run(tmp_path / "none")


@pytest.mark.parametrize(
    ("embed_key", "output_space", "matrix"),
    [
        (None, "all", "X"),
        (None, "gene", "X"),
        ("X_hvg", "gene", "obsm/X_hvg"),
        ("X_hvg", "all", "X"),
        ("X_state", "gene", "obsm/X_hvg"),
        ("X_state", "embedding", "obsm/X_state"),
    ],
)
def test_predictions_are_compared_with_the_matrix_upstream_trains_on(runs, tmp_path, embed_key, output_space, matrix):
    config = yaml.safe_load((runs["good"] / "config.yaml").read_text())
    config["data"]["kwargs"].update(embed_key=embed_key, output_space=output_space)
    copy = tmp_path / "run"
    shutil.copytree(runs["good"], copy)
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert find_run(copy).source_matrix == matrix


def test_gene_names_come_from_the_data_file_and_only_if_their_number_fits(runs, screen):
    run = find_run(runs["good"])
    assert feature_names(run, 60) == screen.genes
    assert feature_names(run, 59) is None
