import torch

from state_rag.evidence.prediction import NEIGHBOURS, heaviest


def test_weights_of_a_perturbation_are_added_without_signs_and_are_relative_to_the_largest():
    weight = torch.tensor([[1.0, 0.0], [-3.0, 2.0], [1.0, -4.0]], dtype=torch.float64)
    assert heaviest(("A", "B", "A"), weight) == [(("B", 1.0), ("A", 2 / 3)), (("A", 1.0), ("B", 0.5))]


def test_no_more_are_named_than_a_prediction_names():
    names = tuple(f"P{number}" for number in range(50))
    (found,) = heaviest(names, torch.arange(50.0)[:, None])
    assert len(found) == NEIGHBOURS
    assert found[0] == ("P49", 1.0)
