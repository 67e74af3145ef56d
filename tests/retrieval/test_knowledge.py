import numpy as np
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge, nearness


@pytest.fixture
def knowledge():
    return Knowledge(["A", "B", "C"], {"text": torch.arange(6.0).view(3, 2), "response": torch.ones(3, 5)})


def test_rows_are_found_by_name_and_unknown_names_give_minus_one_and_zeros(knowledge):
    index = knowledge.index_of(["C", "nobody", "A", "C"])
    assert index.tolist() == [2, -1, 0, 2]
    assert index.dtype == torch.long
    assert knowledge.rows(index, "text").tolist() == [[4, 5], [0, 0], [0, 1], [4, 5]]
    assert knowledge.rows(index)[:2].tolist() == [[4, 5, 1, 1, 1, 1, 1], [0] * 7]
    assert knowledge.rows(knowledge.index_of([])).shape == (0, 7)


def test_an_entry_is_a_row_of_named_blocks_each_of_its_own_width(knowledge):
    assert knowledge.width() == 7
    assert knowledge.width("text") == 2
    assert knowledge.width("response") == 5
    assert knowledge.rows(torch.tensor([1]), "response").tolist() == [[1.0] * 5]
    assert knowledge.block("text").shape == (3, 2)
    assert len(knowledge) == 3
    assert "B" in knowledge
    assert "3 names, 3 candidates, text=2, response=5" in repr(knowledge)


def test_values_stay_out_of_the_state_dict_but_move_with_the_module(knowledge):
    assert knowledge.state_dict() == {}
    assert knowledge.to("meta").block().device.type == "meta"


def test_values_are_kept_in_float32():
    assert Knowledge(["A"], {"text": torch.ones(1, 2, dtype=torch.float64)}).block().dtype == torch.float32


def test_further_queries_may_ask_but_are_not_candidates(knowledge):
    more = knowledge.with_queries(["D"], {"text": torch.full((1, 2), 9.0), "response": torch.zeros(1, 5)})
    assert more.names == ("A", "B", "C", "D")
    assert more.n_candidates == 3
    assert more.rows(more.index_of(["D"])).tolist() == [[9, 9, 0, 0, 0, 0, 0]]
    assert more.known("response").tolist() == [True, True, True, False]
    assert knowledge.names == ("A", "B", "C")
    again = more.with_queries(["E"], {"text": torch.ones(1, 2), "response": torch.zeros(1, 5)})
    assert again.n_candidates == 3


def test_knowledge_survives_a_weights_only_checkpoint(knowledge, tmp_path):
    more = knowledge.with_queries(["D"], {"text": torch.full((1, 2), 9.0), "response": torch.zeros(1, 5)})
    torch.save(more.to_state(), tmp_path / "state.pt")
    back = Knowledge.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert back.names == more.names
    assert back.n_candidates == 3
    for name in ("text", "response"):
        assert torch.equal(back.block(name), more.block(name))


def test_the_stored_state_is_a_copy(knowledge):
    state = knowledge.to_state()
    state["blocks"]["text"].zero_()
    assert knowledge.block("text").sum() == 15


@pytest.mark.parametrize(
    ("names", "blocks", "n_candidates", "message"),
    [
        (["A", "A"], {"text": torch.ones(2, 2)}, None, "more than once.*A"),
        (["A", "B"], {"text": torch.ones(3, 2)}, None, r"\(3, 2\), expected 2 rows"),
        (["A", "B"], {"text": torch.ones(2)}, None, "expected 2 rows"),
        (["A", "B"], {"text": torch.tensor([[1.0], [float("nan")]])}, None, "NaN or infinite values for B"),
        (["A"], {}, None, "no blocks"),
        ([], {"text": torch.ones(0, 2)}, None, "no names"),
        (["A", 3], {"text": torch.ones(2, 2)}, None, "3 is a int"),
        (["A"], {"text": torch.ones(1, 2)}, 2, "n_candidates is 2"),
    ],
)
def test_inconsistent_input_is_refused(names, blocks, n_candidates, message):
    with pytest.raises(StateRagError, match=message):
        Knowledge(names, blocks, n_candidates)


def test_further_queries_must_bring_new_names_and_every_block_in_its_width(knowledge):
    with pytest.raises(StateRagError, match="bring the blocks text, expected response, text"):
        knowledge.with_queries(["D"], {"text": torch.ones(1, 2)})
    with pytest.raises(StateRagError, match="expected 1 x 5"):
        knowledge.with_queries(["D"], {"text": torch.ones(1, 2), "response": torch.ones(1, 4)})
    with pytest.raises(StateRagError, match="more than once"):
        knowledge.with_queries(["A"], {"text": torch.ones(1, 2), "response": torch.ones(1, 5)})


def test_unknown_blocks_and_incomplete_states_are_named(knowledge):
    with pytest.raises(StateRagError, match="no block 'graph'; there are text, response"):
        knowledge.block("graph")
    with pytest.raises(StateRagError, match="lacks blocks, n_candidates"):
        Knowledge.from_state({"names": ["A"]})


def test_coordinates_stand_beside_the_blocks_and_travel_with_them():
    plain = Knowledge(["A", "B"], {"text": torch.eye(2)})
    assert plain.coordinates is None
    assert "coordinates" not in plain.to_state()
    beside = Knowledge(["A", "B"], {"text": torch.eye(2)}, None, torch.tensor([[0.5], [-1]]), {"dose": [1, 2, 3]})
    assert beside.width() == 3
    assert beside.embeddings.tolist() == [[1, 0], [0, 1]]
    assert beside.rows(torch.tensor([1, -1])).tolist() == [[0, 1, -1], [0, 0, 0]]
    more = beside.with_queries(["C"], {"text": torch.ones(1, 2)}, torch.tensor([[7.0]]))
    again = Knowledge.from_state(more.to_state())
    assert again.coordinates.tolist() == [[0.5], [-1], [7]]
    assert again.scaling == {"dose": [1, 2, 3]}
    assert torch.equal(again.values, more.values)


def test_nearness_is_1_at_the_same_place_and_falls_with_the_distance():
    found = nearness(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    assert found[0].tolist() == pytest.approx([1, np.exp(-0.5), np.exp(-1)])
