import torch

from state_rag.tracking.probe import Answer
from state_rag.tracking.watched import MAX_ROWS, WatchedNeighbours


def answer():
    weights = torch.tensor([[[0.9, 0.2]], [[0.1, 0.3]]])
    return Answer(["hepg2", "k562"], ["WARS"], [["AARS", "HARS"]], weights, (weights > 0.5).sum(-1).float(), True)


def test_rows_are_spelled_as_in_retrieval_info():
    watched = WatchedNeighbours()
    watched.add(answer(), ["WARS"], 5)
    first, second = watched.rows
    assert first["retrieved_perturbations"] == "AARS(w=0.90)|HARS(w=0.20)"
    assert (first["selected_perturbations"], first["n_selected"]) == ("AARS", 1)
    assert (second["selected_perturbations"], second["n_selected"]) == ("none", 0)


def test_a_resumed_run_keeps_the_rows_from_before_its_checkpoint(tmp_path):
    first = WatchedNeighbours()
    first.continue_in(tmp_path, before_step=0)
    for step in (9, 19, 29):
        first.add(answer(), ["WARS"], step)
    again = WatchedNeighbours()
    again.continue_in(tmp_path, before_step=20)
    again.add(answer(), ["WARS"], 29)
    assert again.rows == first.rows
    assert [row["step"] for row in again.rows] == [9, 9, 19, 19, 29, 29]


def test_the_oldest_rows_go_when_there_are_too_many():
    watched = WatchedNeighbours()
    watched.rows = [{"step": -1}] * MAX_ROWS
    watched.add(answer(), ["WARS"], 0)
    assert len(watched.rows) == MAX_ROWS
    assert watched.rows[-1]["step"] == 0


def test_nothing_watched_writes_nothing(tmp_path):
    watched = WatchedNeighbours()
    watched.continue_in(tmp_path, before_step=0)
    watched.add(answer(), [], 0)
    assert not list(tmp_path.iterdir())
