import csv

import pytest
import torch

from state_rag.tracking import media
from state_rag.tracking.callback import RetrievalTracker
from tests import tiny_model as tiny
from tests.tracking import training
from tests.tracking.training import LINES, metrics, train

WATCH = {"rag_watch": ["GENE6"]}


@pytest.fixture(scope="module", params=tiny.RETRIEVING)
def run(request, tmp_path_factory):
    """A training of each method that was logged every second step: mode, model, folder."""
    folder = tmp_path_factory.mktemp("run")
    model = tiny.build(request.param, **WATCH)
    train(model, folder)
    return request.param, model, folder


def test_numbers_are_logged_at_logging_steps_only(run):
    mode, _, folder = run
    main = "retrieval/n_selected" if mode == "differentiable" else "retrieval/attention_entropy"
    assert [int(row["step"]) for row in metrics(folder) if main in row] == [1, 3, 5]


def test_each_method_logs_its_series(run):
    mode, _, folder = run
    keys = {key for row in metrics(folder) for key in row}
    common = {"train/gradient_norm_selector", "train/gradient_norm_backbone", "train/gradient_norm_ratio"}
    selecting = {"n_selected", "score_mean", "score_std", "score_scale", "temperature", "inclusion/rank_01"}
    attending = {"attention_entropy", "attention_max", "attention/rank_03"}
    expected = selecting if mode == "differentiable" else attending
    assert common | {f"retrieval/{name}" for name in expected} <= keys
    main = "n_selected" if mode == "differentiable" else "attention_entropy"
    for line in LINES:
        assert f"retrieval/{main}_by_cell_type/{line}" in keys
        assert f"val_retrieval/{main}_by_cell_type/{line}" in keys
    other = attending if mode == "differentiable" else selecting
    assert not {f"retrieval/{name}" for name in other} & keys


def test_validation_sets_of_one_line_are_compared_between_all_lines(run):
    _, _, folder = run
    rows = [row for row in metrics(folder) if "val_retrieval/jaccard_mean" in row]
    assert [int(row["step"]) for row in rows] == [2, 5]
    assert all(0 <= float(row["val_retrieval/jaccard_mean"]) <= 1 + 1e-6 for row in rows)


def test_watched_perturbations_have_a_row_for_each_validation_and_line(run):
    _, model, folder = run
    with open(folder / "version_0" / "watched_neighbours.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], row["cell_type"]) for row in rows] == [(s, line) for s in "25" for line in sorted(LINES)]
    assert {row["perturbation"] for row in rows} == {"GENE6"}
    for row in rows:
        names = [part.partition("(")[0] for part in row["retrieved_perturbations"].split("|")]
        assert len(names) == 3
        assert "GENE6" not in names
        assert set(names) <= set(model.knowledge.names)


def test_afterwards_nobody_listens_to_the_model(run):
    assert run[1].observer is None


def test_logging_does_not_change_what_is_learned(run):
    mode, logged, _ = run
    silent = tiny.build(mode, **WATCH)
    train(silent, None)
    assert all(torch.equal(*pair) for pair in zip(silent.parameters(), logged.parameters(), strict=True))


def test_sampled_inference_draws_random_numbers_of_its_own(tmp_path):
    weights = []
    for folder in (tmp_path, None):
        model = tiny.build("differentiable", rag_inference="sample")
        train(model, folder)
        weights.append(torch.cat([value.flatten() for value in model.parameters()]))
    # Validation itself draws, in both; what is logged besides must not shift later draws.
    assert torch.equal(*weights)


def test_accumulated_batches_are_logged_at_the_steps_of_the_optimiser(tmp_path):
    train(tiny.build(), tmp_path, steps=4, every=2, accumulate=2)
    assert [int(row["step"]) for row in metrics(tmp_path) if "retrieval/n_selected" in row] == [1, 3]


def test_a_model_that_retrieves_nothing_has_no_tracker():
    assert tiny.build("genept").configure_callbacks() == []


def test_between_logging_steps_the_model_is_not_asked_to_show_anything(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(RetrievalTracker, "_observe", lambda self, seen: asked.append(self._step))
    train(tiny.build(), tmp_path, steps=6, every=3)
    assert asked == [2, 5]


def test_batches_that_do_not_name_cell_types_are_logged_without_them(tmp_path, monkeypatch):
    nameless = training.batch

    def without(*given, **more):
        made = nameless(*given, **more)
        return {key: value for key, value in made.items() if key != "cell_type"}

    monkeypatch.setattr(training, "batch", without)
    train(tiny.build(), tmp_path)
    keys = {key for row in metrics(tmp_path) for key in row}
    assert "retrieval/n_selected" in keys
    assert not [key for key in keys if "cell_type" in key or key.startswith("val_retrieval")]


def test_between_logging_steps_the_model_logs_nothing_of_its_own(monkeypatch, tmp_path):
    model, logged = tiny.build(), []
    monkeypatch.setattr(type(model), "log", lambda self, name, *_, **__: logged.append((self.global_step, name)))
    train(model, tmp_path, steps=6, every=3)
    ours = ("train/gumbel", "retrieval/", "train/gradient_norm_")
    assert {step for step, name in logged if name.startswith(ours)} == {2, 3, 5, 6}  # 3 and 6: after the step
    assert {step for step, name in logged if name.startswith("train/gumbel")} == {2, 5}


def test_gradient_checks_are_logged_at_their_own_interval(tmp_path):
    train(tiny.build(check_gradients=True, gradient_check_interval=2), tmp_path, steps=6, every=5)
    assert [int(row["step"]) for row in metrics(tmp_path) if "gradients/selector" in row] == [0, 2, 4]


def test_trouble_with_pictures_and_tables_stops_no_training(tmp_path, monkeypatch, caplog):
    class Run:
        def log_metrics(self, values, step):
            raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(media, "wandb_loggers", lambda trainer: [Run()])
    trainer = train(tiny.build(**WATCH), tmp_path)
    assert trainer.global_step == 6
    (warning,) = [record for record in caplog.records if record.name == "state_rag.tracking.callback"]
    assert warning.getMessage() == "Step 1: pictures and tables were not logged to W&B (no route to host)."


def test_a_resumed_training_goes_on_with_the_table_of_watched_perturbations(tmp_path):
    train(tiny.build(**WATCH), tmp_path, steps=3).save_checkpoint(tmp_path / "last.ckpt")
    train(tiny.build(**WATCH), tmp_path, steps=6, checkpoint=tmp_path / "last.ckpt")
    with open(tmp_path / "version_0" / "watched_neighbours.csv", newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["2", "2", "2", "5", "5", "5"]
