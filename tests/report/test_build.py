import pandas as pd

from state_rag.report.build import logged_values


def test_learning_curves_go_on_where_training_did(tmp_path):
    folder = tmp_path / "version_0"
    folder.mkdir()
    pd.DataFrame({"step": [5, 10, 15], "val_loss": [3.0, 2.0, 9.0]}).to_csv(
        folder / "metrics_to_step_12.csv", index=False
    )
    pd.DataFrame({"step": [15, 20], "val_loss": [1.5, 1.0]}).to_csv(folder / "metrics.csv", index=False)
    assert logged_values(tmp_path).to_numpy().tolist() == [[5, 3.0], [10, 2.0], [15, 1.5], [20, 1.0]]


def test_a_run_that_logged_nothing_has_no_learning_curve(tmp_path):
    assert logged_values(tmp_path) is None
